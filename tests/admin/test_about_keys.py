"""Whose turn it is to read balances, among control planes that share a real Redis."""

import asyncio
from pathlib import Path

from admin.about_keys import turn
from proxy.shared_state.breaker import Breaker, Guard
from tests.redis_servers import connected, server


def test_one_of_all_control_planes_has_the_turn_in_an_interval(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        async with connected(url) as one, connected(url) as other:
            here, there = Guard(one, Breaker()), Guard(other, Breaker())
            assert await turn(one, here, 600.0)
            assert not await turn(other, there, 600.0)
            assert not await turn(one, here, 600.0)
            assert await turn(other, there, 60.0), "an interval that is set anew counts at once"
            assert await turn(one, here, 0.05)
            await asyncio.sleep(0.1)
            assert await turn(other, there, 0.05)

    with server(tmp_path) as port:
        asyncio.run(story(f"redis://127.0.0.1:{port}"))
