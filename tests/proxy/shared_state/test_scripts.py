"""Lua scripts, on a real server that forgets them."""

import asyncio
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.scripts import Script
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at


def test_a_script_is_run_whether_redis_has_it_or_not(tmp_path: Path) -> None:
    file = tmp_path / "script.lua"
    file.write_text("return {KEYS[1], ARGV[1], ARGV[2]}")
    script = Script(file)

    async def main() -> None:
        async with connected(url) as client:
            guard = Guard(client, Breaker(), DEADLINE_S)
            for _ in range(2):
                assert await script.run(client, guard, ["key"], [b"\xff", 5]) == [b"key", b"\xff", b"5"]
                about = await client.info("commandstats")
                assert about["cmdstat_eval"]["calls"] == 1
            await client.script_flush()
            assert await script.run(client, guard, ["key"], ["a", "b"]) == [b"key", b"a", b"b"]

    with redis_at(EMBEDDED, tmp_path / "redis") as url:
        asyncio.run(main())


def test_a_script_that_fails_is_not_run_again(tmp_path: Path) -> None:
    file = tmp_path / "script.lua"
    file.write_text("redis.call('INCR', KEYS[1]) return redis.call('HGET', KEYS[1], 'a')")
    script = Script(file)

    async def main() -> None:
        async with connected(url) as client:
            with pytest.raises(ResponseError):
                await script.run(client, Guard(client, Breaker(), DEADLINE_S), ["key"], [])
            assert await client.get("key") == b"1"

    with redis_at(EMBEDDED, tmp_path / "redis") as url:
        asyncio.run(main())
