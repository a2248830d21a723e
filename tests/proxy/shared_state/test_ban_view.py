"""A worker's view of all bans, on a real server: what it hears, reads, and puts back where Redis lost it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pytest

from loadtests.processes import free_port
from proxy.rules.credentials import Ban
from proxy.shared_state import ban_view
from proxy.shared_state.ban_view import OFFERS_MAX, BanView, number_of
from proxy.shared_state.bans import BanStore, decode_ban, encode_ban, field_of
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client, connect
from proxy.shared_state.keys import BANS, BANS_CHANGES, BANS_VERSION
from tests.proxy.shared_state.key_pools import BANNED, DEAD, Told
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Played:
    """A worker that puts bans as it is told to, and one that looks on, unless `hear` says otherwise without hearing."""

    def __init__(self, client: Client, other: Any, store: BanStore) -> None:
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.other = other
        self.far = store
        self.told = Told()
        self.store = BanStore(client, self.guard)
        self.view = BanView(client, self.guard, self.store, self.told)

    async def put(self, credential: str, ban: Ban | None, model: str = "") -> None:
        known = self.far.known.get(field_of(credential, model))
        assert (await self.far.put(credential, model, decode_ban(known.data) if known else None, ban)).won

    async def refresh(self) -> dict[tuple[str, str], Ban]:
        await self.view.refresh()
        return self.told.bans

    def hear(self, number: int, credential: str, ban: Ban | None) -> None:
        data = None if ban is None else encode_ban(ban)
        self.view.hear(msgspec.msgpack.encode(["bans", number, credential.encode(), data]))

    async def in_redis(self) -> dict[bytes, Ban | None]:
        return {field: decode_ban(data) for field, data in (await self.other.hgetall(BANS)).items()}


def play(url: str, story: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client, connected(url) as other, connected(url) as far:
            await other.flushall()
            await story(Played(client, other, BanStore(far, Guard(far, Breaker(), DEADLINE_S))))

    asyncio.run(main())


def test_all_are_read_and_then_what_changes(url: str) -> None:
    async def story(played: Played) -> None:
        assert await played.refresh() == {}
        await played.put("a", BANNED)
        await played.put("b", DEAD, "model")
        assert await played.refresh() == {("a", ""): BANNED, ("b", "model"): DEAD}
        await played.put("a", None)
        await played.put("c", DEAD)
        assert await played.refresh() == {("c", ""): DEAD, ("b", "model"): DEAD}
        assert await played.refresh() == {("c", ""): DEAD, ("b", "model"): DEAD}
        assert len(played.told.told) == 4
        played.view.distrust()
        await played.put("b", None, "model")
        assert await played.refresh() == {("c", ""): DEAD}
        assert len(played.told.told) == 5

    play(url, story)


def test_an_announcement_holds_at_once_and_is_not_read_again(url: str) -> None:
    async def story(played: Played) -> None:
        await played.refresh()
        await played.put("a", BANNED)
        played.hear(1, "a", BANNED)
        assert (played.told.bans, played.view.behind) == ({("a", ""): BANNED}, False)
        await played.refresh()
        await played.put("a", None)
        played.hear(2, "a", None)
        assert (played.told.bans, played.view.behind) == ({}, False)
        await played.refresh()
        assert len(played.told.told) == 2

    play(url, story)


def test_a_gap_shows_and_is_filled(url: str) -> None:
    async def story(played: Played) -> None:
        await played.refresh()
        await played.put("a", BANNED)
        await played.put("b", DEAD)
        played.hear(2, "b", DEAD)
        assert (played.told.bans, played.view.behind) == ({("b", ""): DEAD}, True)
        assert await played.refresh() == {("a", ""): BANNED, ("b", ""): DEAD}
        assert not played.view.behind

    play(url, story)


def test_an_announcement_that_comes_after_what_was_read_changes_nothing(url: str) -> None:
    async def story(played: Played) -> None:
        await played.put("a", BANNED)
        await played.put("a", DEAD)
        await played.refresh()
        played.hear(1, "a", BANNED)
        assert played.told.bans == {("a", ""): DEAD}
        played.hear(2, "a", DEAD)
        assert len(played.told.told) == 1

    play(url, story)


def test_what_this_worker_put_itself_it_is_not_told(url: str) -> None:
    async def story(played: Played) -> None:
        await played.refresh()
        await played.store.put("a", "", None, BANNED)
        played.hear(1, "a", BANNED)
        await played.store.put("a", "", BANNED, DEAD)
        await played.refresh()
        assert played.told.told == []
        await played.put("b", BANNED)
        await played.store.put("b", "", BANNED, DEAD)
        await played.store.put("b", "", BANNED, DEAD)
        played.hear(3, "b", BANNED)
        assert played.told.bans == {}, "older than what it has put"

    play(url, story)


def test_what_redis_lost_is_put_back_and_stays(url: str) -> None:
    async def story(played: Played) -> None:
        for credential in ("a", "b", "c"):
            await played.put(credential, BANNED)
        await played.refresh()
        await played.other.flushall()
        played.far.known.clear()
        await played.put("b", DEAD)
        assert await played.refresh() == {("a", ""): BANNED, ("b", ""): DEAD, ("c", ""): BANNED}
        assert await played.in_redis() == {b"a": BANNED, b"b": DEAD, b"c": BANNED}
        assert await played.other.get(BANS_VERSION) == b"3"
        assert (await played.store.put("a", "", BANNED, DEAD)).won
        await played.put("b", None)
        assert (await played.refresh())["c", ""] == BANNED
        assert ("b", "") not in played.told.bans

    play(url, story)


def test_two_workers_put_back_what_each_knows_and_neither_disturbs_the_other(url: str) -> None:
    async def story(played: Played) -> None:
        far = BanView(played.far._client, played.far._guard, played.far, told := Told())
        await played.put("a", BANNED)
        await played.put("b", BANNED)
        await far.refresh()
        await played.refresh()
        await played.other.flushall()
        await asyncio.gather(far.refresh(), played.refresh())
        assert await played.in_redis() == {b"a": BANNED, b"b": BANNED}
        await far.refresh()
        await played.refresh()
        assert played.told.bans == {("a", ""): BANNED, ("b", ""): BANNED}
        assert told.bans == {}, "it had put them itself"

    play(url, story)


def test_much_that_is_lost_is_put_back_bit_by_bit(url: str) -> None:
    async def story(played: Played) -> None:
        names = [f"k{number}" for number in range(OFFERS_MAX + 1)]
        for name in names:
            await played.put(name, BANNED)
        await played.refresh()
        await played.other.flushall()
        await played.refresh()
        assert (len(await played.in_redis()), played.view.behind) == (OFFERS_MAX, True)
        await played.refresh()
        assert (len(await played.in_redis()), played.view.behind) == (OFFERS_MAX + 1, False)
        assert len(played.told.bans) == OFFERS_MAX + 1

    play(url, story)


def test_a_redis_that_counts_anew_is_noticed_by_what_it_announces(url: str) -> None:
    async def story(played: Played) -> None:
        await played.put("a", BANNED)
        await played.put("b", BANNED)
        await played.refresh()
        await played.other.flushall()
        played.far.known.clear()
        await played.put("c", DEAD)
        played.hear(1, "c", DEAD)
        assert played.view.behind
        assert await played.refresh() == {("a", ""): BANNED, ("b", ""): BANNED, ("c", ""): DEAD}

    play(url, story)


def test_what_was_decided_without_redis_is_put_there_afterwards(url: str) -> None:
    async def story(played: Played) -> None:
        for name in ("a", "b", "c"):
            await played.put(name, BANNED)
        await played.refresh()
        deaf = connect(f"redis://127.0.0.1:{free_port()}")
        gone = BanStore(deaf, Guard(deaf, Breaker(), DEADLINE_S))
        gone.known, gone.unshared = played.store.known, played.store.unshared
        for name, new in (("a", None), ("b", DEAD), ("c", DEAD), ("d", BANNED)):
            with pytest.raises(StoreUnavailable):
                await gone.put(name, "", BANNED, new)
        await deaf.aclose()
        await played.put("c", None)
        played.view.distrust()
        played.told.told.clear()
        await played.refresh()
        assert await played.in_redis() == {b"b": DEAD, b"d": BANNED}
        assert played.told.told == [("c", "", None)], "another worker's word in the meantime holds"

    play(url, story)


def test_very_many_are_read_whole_and_in_chunks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ban_view, "CHANGES_MAX", 1000)

    async def story(played: Played) -> None:
        await played.refresh()
        for count, number in ((1000, 1000), (1700, 2700)):
            await played.other.hset(BANS, mapping={f"k{each}": encode_ban(BANNED) for each in range(count)})
            await played.other.zadd(BANS_CHANGES, {f"k{each}": number - count + each + 1 for each in range(count)})
            await played.other.set(BANS_VERSION, number)
            assert len(await played.refresh()) == count

    play(url, story)


def test_garbage_is_no_ban_and_ends_nothing(url: str) -> None:
    async def story(played: Played) -> None:
        await played.other.hset(BANS, mapping={"a": b"garbage", b"\xff": encode_ban(BANNED), "b": encode_ban(DEAD)})
        await played.other.set(BANS_VERSION, "garbage")
        assert (await played.refresh())["b", ""] == DEAD
        await played.other.set(BANS_VERSION, 3)
        await played.refresh()

    play(url, story)


@pytest.mark.parametrize(("data", "number"), [(b"12", 12), (None, 0), (b"-1", 0), (b"", 0), (b"9" * 5000, 0)])
def test_a_number_or_none(data: bytes | None, number: int) -> None:
    assert number_of(data) == number
