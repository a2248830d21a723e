"""How credentials are published, on real servers: parts, the whole, and several control planes at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.processes import free_port
from proxy.rules.credentials import Credential, Kind
from proxy.shared_state import published_credentials
from proxy.shared_state.bans import encode_ban
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client, connect
from proxy.shared_state.keys import (
    BANS,
    BANS_CHANGES,
    CREDENTIALS,
    CREDENTIALS_CHANGES,
    CREDENTIALS_CHANNEL,
    CREDENTIALS_VERSION,
)
from proxy.shared_state.published import Mark, encode_mark
from proxy.shared_state.published_credentials import (
    CHUNK,
    UNFINISHED,
    Replace,
    decode_credential,
    encode_credential,
    publish_credentials,
    published_mark,
)
from tests.proxy.shared_state.key_pools import BANNED, credential
from tests.redis_servers import DEADLINE_S, EMBEDDED, cluster, connected, redis_at

MADE_MS = 1763700000000
A, B, C = credential(1), credential(2), credential(3)


def mark(version: int) -> Mark:
    return Mark(version, MADE_MS)


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Publishing:
    """A control plane that publishes what it is told to, and an onlooker."""

    def __init__(self, client: Client, onlooker: Any) -> None:
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.onlooker = onlooker

    async def whole(self, version: int, *credentials: Credential) -> None:
        await publish_credentials(self.client, self.guard, credentials, [], mark(version), Replace.WHOLE)

    async def part(self, version: int, changed: Sequence[Credential] = (), gone: Sequence[str] = ()) -> None:
        await publish_credentials(self.client, self.guard, changed, gone, mark(version), Replace.PART)

    async def mark(self) -> Mark | None:
        return await published_mark(self.client, self.guard)

    async def records(self) -> dict[str, Credential]:
        found = await self.onlooker.hgetall(CREDENTIALS)
        return {name.decode(): decode_credential(data) for name, data in found.items() if name}


def play(url: str, story: Callable[[Publishing], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client, connected(url) as onlooker:
            if "cluster" not in url:
                await onlooker.flushall()
            await story(Publishing(client, onlooker))

    asyncio.run(main())


async def whole_and_parts(told: Publishing) -> None:
    assert await told.mark() is None
    await told.whole(3, A, B)
    assert (await told.mark(), await told.records()) == (mark(3), {"k1": A, "k2": B})
    other = credential(2, "other")
    await told.part(4, [other, C], ["k1", "unknown"])
    assert (await told.mark(), await told.records()) == (mark(4), {"k2": other, "k3": C})
    assert await told.onlooker.zrangebyscore(CREDENTIALS_CHANGES, "(3", "+inf") == [b"k1", b"k2", b"k3", b"unknown"]
    await told.part(5)
    assert await told.mark() == mark(5)


def test_the_whole_and_then_what_changes(url: str) -> None:
    play(url, whole_and_parts)


def test_the_same_in_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", whole_and_parts)


def test_the_whole_leaves_nothing_of_what_was(url: str) -> None:
    async def story(told: Publishing) -> None:
        await told.whole(8, A, B)
        await told.whole(2, C)
        assert (await told.mark(), await told.records()) == (mark(2), {"k3": C})
        await told.whole(3)
        assert (await told.mark(), await told.records()) == (mark(3), {})

    play(url, story)


def test_many_are_written_in_chunks(url: str) -> None:
    async def story(told: Publishing) -> None:
        many = [credential(number) for number in range(2 * CHUNK + 1)]
        await told.whole(1, *many)
        assert len(await told.records()) == len(many)
        await told.part(2, gone=[each.id for each in many])
        assert await told.records() == {}

    play(url, story)


def test_a_version_is_announced_when_it_is_there(url: str) -> None:
    async def story(told: Publishing) -> None:
        async with told.onlooker.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CREDENTIALS_CHANNEL)
            await channel.get_message(timeout=DEADLINE_S)
            await told.whole(3, A)
            await told.part(4, [B])
            for version in (3, 4):
                message = await channel.get_message(timeout=DEADLINE_S)
                assert msgspec.msgpack.decode(message["data"]) == ["records", version]

    play(url, story)


def test_a_part_needs_a_whole_before_it(url: str) -> None:
    async def story(told: Publishing) -> None:
        with pytest.raises(StoreUnavailable, match="superseded"):
            await told.part(4, [A])
        await told.onlooker.set(CREDENTIALS_VERSION, encode_mark(mark(3)))  # the hash was evicted
        assert await told.mark() is None
        with pytest.raises(StoreUnavailable, match="superseded"):
            await told.part(4, [A])
        await told.onlooker.hset(CREDENTIALS, "", UNFINISHED + b"a")
        assert await told.mark() is None
        assert await told.records() == {}

    play(url, story)


def test_a_late_part_does_not_replace_what_a_later_version_has_written(url: str) -> None:
    async def story(told: Publishing) -> None:
        later = credential(1, "later")
        await told.whole(3, A)
        await told.part(5, [later], ["k2"])
        await told.part(4, [A, B])
        assert await told.records() == {"k1": later}

    play(url, story)


def test_a_writer_stops_where_another_has_begun_to_write_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at the worst moment: the other begins between two of its chunks, and before its end."""

    async def story(told: Publishing) -> None:
        run = published_credentials._write.run

        async def interrupted(*arguments: Any) -> Any:
            answer = await run(*arguments)
            monkeypatch.undo()
            await told.whole(9, C)
            return answer

        for replace in Replace:
            for credentials in ([A], [credential(number) for number in range(10, 10 + CHUNK + 1)]):
                await told.whole(3, B)
                monkeypatch.setattr(published_credentials._write, "run", interrupted)
                with pytest.raises(StoreUnavailable, match="superseded"):
                    await publish_credentials(told.client, told.guard, credentials, [], mark(4), replace)
                assert (await told.mark(), await told.records()) == (mark(9), {"k3": C})

    play(url, story)


def test_who_died_while_he_wrote_all_left_nothing_published(url: str) -> None:
    async def story(told: Publishing) -> None:
        await told.whole(3, A, B)
        await published_credentials._begin(told.client, told.guard)
        assert await told.mark() is None
        await told.whole(4, B)
        assert (await told.mark(), await told.records()) == (mark(4), {"k2": B})

    play(url, story)


def test_the_bans_of_those_that_are_gone_go_with_them(url: str) -> None:
    async def story(told: Publishing) -> None:
        await told.whole(3, A, B)
        for number, field in enumerate(("k1", "k1\0m", "k2", "k2\0k1", "k11")):
            await told.onlooker.hset(BANS, field, encode_ban(BANNED))
            await told.onlooker.zadd(BANS_CHANGES, {field: number})
        await told.part(4, gone=["k1"])
        left = [b"k2", b"k2\0k1", b"k11"]
        assert sorted(await told.onlooker.hkeys(BANS)) == sorted(left)
        assert await told.onlooker.zrange(BANS_CHANGES, 0, -1) == left

    play(url, story)


def test_without_redis_nothing_is_published() -> None:
    async def main() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        told = Publishing(client, None)
        for publish in (told.whole(1, A), told.part(1, [A]), told.mark()):
            with pytest.raises(StoreUnavailable):
                await publish
        await client.aclose()

    asyncio.run(main())


def test_a_credential_comes_back_as_it_was() -> None:
    whole = Credential("id", "secret", "group", Kind.OAUTH, False, 1, 2, 3.5, 4, 5)
    assert decode_credential(encode_credential(whole)) == whole
    with pytest.raises(msgspec.MsgspecError):
        decode_credential(b"garbage")
