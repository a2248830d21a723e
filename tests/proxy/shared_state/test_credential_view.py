"""A worker's view of the published credentials, on a real server: what it reads, leaves, and costs."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.rules.credentials import Credential
from proxy.shared_state import credential_view
from proxy.shared_state.ban_view import BanView
from proxy.shared_state.bans import BanStore
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import DEADLINE_S as CALL_S
from proxy.shared_state.credential_file import CredentialFile
from proxy.shared_state.credential_view import CredentialView
from proxy.shared_state.keys import CREDENTIALS, CREDENTIALS_CHANGES
from proxy.shared_state.published import Mark
from proxy.shared_state.published_credentials import CHUNK, GENERATION, UNFINISHED, Replace, publish_credentials
from tests.proxy.shared_state.key_pools import BANNED, Told, credential
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until

MANY = 100_000
STALL_MAX_S = 0.05
LOAD_MAX_S = 3.0


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Played:
    """A control plane and a worker that looks at what it publishes."""

    def __init__(self, other: Any, client: Any, file: Path, deadline_s: float = DEADLINE_S) -> None:
        self.other = other
        self.guard = Guard(other, Breaker(), DEADLINE_S)
        self.client = client
        self.file = file
        self.deadline_s = deadline_s
        self.told = Told()
        self.view = self.new_view(self.told)

    def new_view(self, told: Told) -> CredentialView:
        guard = Guard(self.client, Breaker(), self.deadline_s)
        self.store = BanStore(self.client, guard)
        bans = BanView(self.client, guard, self.store, told)
        return CredentialView(self.client, guard, told, bans, CredentialFile(self.file))

    async def whole(self, version: int, *credentials: Credential, made_ms: int = 1) -> None:
        await publish_credentials(self.other, self.guard, credentials, [], Mark(version, made_ms), Replace.WHOLE)

    async def part(self, version: int, *changed: Credential, gone: tuple[str, ...] = (), made_ms: int = 1) -> None:
        await publish_credentials(self.other, self.guard, changed, gone, Mark(version, made_ms), Replace.PART)

    async def sees(self, *credentials: Credential) -> bool:
        await self.view.refresh()
        return self.told.credentials == {each.id: each for each in credentials}


def play(url: str, file: Path, story: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as other, connected(url) as client:
            await other.flushall()
            await story(Played(other, client, file))

    asyncio.run(main())


@pytest.fixture(name="file")
def fixture_file(tmp_path: Path) -> Path:
    return tmp_path / "last-good" / "credentials.msgpack"


A, B, C = credential(1), credential(2), credential(3)


def test_all_are_read_and_then_what_changes(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        assert await played.sees()
        await played.whole(1, A, B)
        assert await played.sees(A, B)
        other = credential(2, "other")
        await played.part(2, other, C, gone=("k1",))
        played.told.told.clear()
        assert await played.sees(other, C)
        assert await played.sees(other, C)
        assert played.told.told == [(["k2", "k3"], []), ([], ["k1"])]

    play(url, file, story)


def test_it_is_known_when_all_has_been_told_or_that_there_is_nothing(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.view.begin()
        assert not played.told.complete
        await played.other.hset(CREDENTIALS, GENERATION, UNFINISHED + b"1")
        await played.view.refresh()
        assert not played.told.complete, "it is being written"
        await played.whole(1, A, B)
        assert await played.sees(A, B)
        assert played.view._user.complete
        await played.other.flushall()
        nothing = Told()
        await played.new_view(nothing).refresh()
        assert nothing.complete

    play(url, file, story)


def test_what_is_the_same_is_not_told_again(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.whole(1, A, B)
        assert await played.sees(A, B)
        await played.whole(5, A, C)
        assert await played.sees(A, C)
        assert played.told.told[1:] == [(["k3"], []), ([], ["k2"])]

    play(url, file, story)


@pytest.mark.parametrize(("version", "made_ms"), [(9, 1), (3, 1), (3, 2), (2, 1), (2, 2), (9, 2)])
def test_other_credentials_are_read_whole_whatever_their_version(
    url: str, file: Path, version: int, made_ms: int
) -> None:
    """As of another database; also if more was published since then, and this worker heard of none of it."""

    async def story(played: Played) -> None:
        await played.whole(3, A, B)
        assert await played.sees(A, B)
        await played.whole(version, C, made_ms=made_ms)
        await played.part(version + 5, A, made_ms=made_ms)
        assert await played.sees(A, C)

    play(url, file, story)


def test_a_redis_that_is_empty_or_being_filled_changes_nothing(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.whole(3, A, B)
        assert await played.sees(A, B)
        await played.other.flushall()
        assert await played.sees(A, B)
        await played.other.hset(CREDENTIALS, "", "!unfinished")
        assert await played.sees(A, B)
        await played.whole(3, B)
        assert await played.sees(B)

    play(url, file, story)


@pytest.mark.parametrize("read", ["_read_all", "_read_changes"])
def test_a_redis_that_loses_all_while_it_is_read_takes_nothing_away(
    url: str, file: Path, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(played: Played) -> None:
        await played.whole(3, A, B)
        assert await played.sees(A, B)
        if read == "_read_all":
            await played.whole(4, A, B)
        else:
            await played.part(4, A)
        names = await played.other.zrange(CREDENTIALS_CHANGES, 0, -1)
        method = getattr(CredentialView, read)

        async def interrupted(view: CredentialView, *arguments: Any) -> Any:
            await played.other.flushall()
            await played.other.zadd(CREDENTIALS_CHANGES, dict.fromkeys(names, 4))
            return await method(view, *arguments)

        monkeypatch.setattr(CredentialView, read, interrupted)
        assert await played.sees(A, B)
        monkeypatch.undo()
        await played.whole(5, C)
        assert await played.sees(C)

    play(url, file, story)


def test_what_cannot_be_read_is_left_in_one_line_without_what_is_in_it(
    url: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(played: Played) -> None:
        await played.whole(1, A, B)
        assert await played.sees(A, B)
        await played.other.hset(CREDENTIALS, mapping={"k1": b"a-secret", b"\xff": b"a-secret", "k4": b"\x91\xa2id"})
        await played.other.zadd(CREDENTIALS_CHANGES, {b"\xff": 2, "k1": 2, "k4": 2, b"\xfe": 2})
        await played.part(2, C)
        assert await played.sees(A, B, C)
        await played.other.hset(CREDENTIALS, "", "another")
        assert await played.sees(A, B, C)

    play(url, file, story)
    assert [record.getMessage().split(", ")[0] for record in caplog.records] == [
        "3 published credentials cannot be read"
    ] * 2
    assert "secret" not in caplog.text


def test_the_bans_of_one_that_is_gone_are_forgotten(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.whole(1, A, B)
        assert await played.sees(A, B)
        await played.store.put("k1", "m", None, BANNED)
        await played.store.put("k2", "m", None, BANNED)
        await played.part(2, gone=("k1",))
        assert await played.sees(B)
        assert list(played.store.known) == [b"k2\0m"]

    play(url, file, story)


def test_what_lay_on_disk_is_given_at_once_and_then_only_what_changed(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.whole(1, A, B)
        async with beside(played.view.follow()):
            await until(lambda: asyncio.to_thread(file.exists))
        await played.part(2, C, gone=("k1",))
        told = Told()
        view = played.new_view(told)
        await view.begin()
        assert told.credentials == {"k1": A, "k2": B}
        told.told.clear()
        await view.refresh()
        assert told.told == [(["k3"], []), ([], ["k1"])]

    play(url, file, story)


def test_a_damaged_file_is_not_trusted(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.whole(1, A, B)
        async with beside(played.view.follow()):
            await until(lambda: asyncio.to_thread(file.exists))
        data = content(file)
        for damaged in (b"", b"garbage", data[:-1], data + b"\0\0\0\0", data[:-1] + b"\xc1"):
            await asyncio.to_thread(file.write_bytes, damaged)
            view = played.new_view(told := Told())
            await view.begin()
            assert view.known is None
            await view.refresh()
            assert told.credentials == {"k1": A, "k2": B}

    play(url, file, story)


def test_changes_are_kept_on_disk_together_and_not_each(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.whole(1, A)
        async with beside(played.view.follow()):
            await until(lambda: asyncio.to_thread(file.exists))
            first = content(file)
            for version in range(2, 5):
                await played.part(version, credential(version))
                played.view.refresh_soon()
                await until(lambda version=version: seen(played, version))  # type: ignore[misc]
                await asyncio.sleep(0.05)  # for it to be written, which it must not be
            assert content(file) == first
            played.view._keep_at_s = 0.0
            played.view.refresh_soon()
            await until(lambda: differs(file, first))
        view = played.new_view(told := Told())
        await view.begin()
        assert len(told.credentials) == 4

    play(url, file, story)


def content(file: Path) -> bytes:
    return file.read_bytes()


async def differs(file: Path, data: bytes) -> bool:
    return content(file) != data


async def seen(played: Played, version: int) -> bool:
    return played.view.known is not None and played.view.known.mark.version == version


@asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """For how long, at the longest, nothing else could run."""
    worst = [0.0]

    async def watch() -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0)
            worst[0] = max(worst[0], time.perf_counter() - began_s)
            await asyncio.sleep(0.001)

    async with beside(watch()):
        yield worst


def test_100_000_come_in_soon_and_hold_nothing_up(url: str, file: Path) -> None:
    """From Redis, from disk, and as a change of all of them; the best of some tries, on a machine that may be busy."""
    many = [credential(number, "e" * 120) for number in range(MANY)]

    async def best(load: Callable[[CredentialView], Coroutine[Any, Any, Any]], played: Played) -> None:
        figures = []
        for _ in range(4):
            view = played.new_view(told := Told())
            gc.collect()
            async with stalls() as worst:
                began_s = time.monotonic()
                await load(view)
                figures.append((time.monotonic() - began_s, worst[0]))
            assert len(told.credentials) == MANY
            if figures[-1][0] < LOAD_MAX_S and figures[-1][1] < STALL_MAX_S:
                print(figures)
                return
        pytest.fail(f"took and held up, s: {figures}")

    async def story(played: Played) -> None:
        played.deadline_s = CALL_S
        await played.whole(1, *many)
        await best(lambda view: view.refresh(), played)
        keeping = played.new_view(Told())
        await keeping.refresh()
        async with stalls() as worst:
            await keeping._keep()
        print(worst)
        await best(lambda view: view.begin(), played)
        assert len(content(file)) < MANY * 200

    play(url, file, story)


def test_more_changes_than_are_worth_it_are_read_as_all(url: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_view, "CHANGES_MAX", CHUNK)

    async def story(played: Played) -> None:
        await played.whole(1, A)
        assert await played.sees(A)
        for version, count in ((2, CHUNK), (3, CHUNK + 1)):
            many = [credential(number, str(version)) for number in range(10, 10 + count)]
            await played.part(version, *many)
            assert await played.sees(A, *many)

    play(url, file, story)
