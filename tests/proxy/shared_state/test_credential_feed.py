"""What a worker hears of credentials and bans, on real servers that lose announcements, data, or go away."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.rules.credentials import Ban, Credential
from proxy.shared_state.ban_view import OFFERS_MAX
from proxy.shared_state.bans import BanStore, decode_ban, encode_ban
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import DEADLINE_S as CALL_S
from proxy.shared_state.client import Client, close_idle
from proxy.shared_state.credential_feed import CredentialFeed
from proxy.shared_state.credential_view import POLL_S
from proxy.shared_state.keys import BANS, BANS_CHANGES, BANS_VERSION, CREDENTIALS_CHANNEL
from proxy.shared_state.published import Mark
from proxy.shared_state.published_credentials import Replace, publish_credentials
from tests.proxy.shared_state.key_pools import BANNED, DEAD, Told, credential
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, server, until

VISIBLE_S = 0.1
ROUNDS = 20
A, B, C = credential(1), credential(2), credential(3)


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Played:
    """A control plane, another worker, and one that listens."""

    def __init__(self, client: Client, other: Any, file: Path) -> None:
        self.other = other
        self.guard = Guard(other, Breaker(), DEADLINE_S)
        self.far = BanStore(other, self.guard)
        self.told = Told()
        self.feed = CredentialFeed(client, Guard(client, Breaker(), CALL_S), self.told, file)

    async def publish(self, version: int, *changed: Credential, replace: Replace = Replace.PART) -> None:
        await publish_credentials(self.other, self.guard, changed, [], Mark(version, 1), replace)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        async with beside(self.feed.listen()), beside(self.feed.credentials.follow()):
            yield

    async def has(self, *credentials: Credential, within_s: float = DEADLINE_S) -> None:
        async def look() -> bool:
            return self.told.credentials == {each.id: each for each in credentials}

        await until(look, within_s)

    async def bans(self, bans: dict[str, Ban], within_s: float = DEADLINE_S) -> None:
        async def look() -> bool:
            return self.told.bans == {(name, ""): ban for name, ban in bans.items()}

        await until(look, within_s)


def play(url: str, directory: Path, story: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url, CALL_S) as client, connected(url) as other:
            if "cluster" not in url:
                await other.flushall()
            await story(Played(client, other, directory / "last-good" / "credentials.msgpack"))

    asyncio.run(main())


async def follows(played: Played) -> None:
    await played.publish(1, A, replace=Replace.WHOLE)
    await played.far.put("k1", "", None, BANNED)
    async with played.following():
        await played.has(A)
        await played.bans({"k1": BANNED})
        await played.publish(2, B)
        await played.has(A, B)
        await played.far.put("k2", "", None, DEAD)
        await played.bans({"k1": BANNED, "k2": DEAD})


def test_what_is_there_and_what_changes(url: str, tmp_path: Path) -> None:
    play(url, tmp_path, follows)


def test_the_same_in_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", tmp_path, follows)


def test_changes_are_visible_at_once(url: str, tmp_path: Path) -> None:
    """Half of the tries, and not all: the machine may be busy. The poll comes once a second, so it cannot be meant."""

    async def story(played: Played) -> None:
        await played.publish(1, A, replace=Replace.WHOLE)
        took_s: dict[str, list[float]] = {"ban": [], "credential": []}
        async with played.following():
            await played.has(A)
            await asyncio.sleep(VISIBLE_S)
            known: Ban | None = None
            for number in range(ROUNDS):
                ban = Ban(BANNED.cause, float(number), 5.0)
                began_s = time.monotonic()
                assert (await played.far.put("k1", "", known, ban)).won
                await played.bans({"k1": ban})
                took_s["ban"].append(time.monotonic() - began_s)
                known = ban
                began_s = time.monotonic()
                await played.publish(2 + number, changed := credential(1, str(number)))
                await played.has(changed)
                took_s["credential"].append(time.monotonic() - began_s)
        for figures in took_s.values():
            assert sorted(figures)[ROUNDS // 2] < VISIBLE_S, took_s

    play(url, tmp_path, story)


def test_lost_announcements_are_made_up_for_within_a_second(url: str, tmp_path: Path) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A, replace=Replace.WHOLE)
        async with played.following():
            await played.has(A)
            await played.far.put("k1", "", None, BANNED)
            await played.bans({"k1": BANNED})
            await played.other.hset(BANS, "k2", encode_ban(DEAD))
            await played.other.hdel(BANS, "k1")
            await played.other.zadd(BANS_CHANGES, {"k1": 2, "k2": 3})
            await played.other.set(BANS_VERSION, 3)
            await played.bans({"k2": DEAD}, POLL_S + 2)
            assert len(played.told.bans) == 1

    play(url, tmp_path, story)


def test_what_is_no_announcement_is_passed_over(url: str, tmp_path: Path) -> None:
    async def story(played: Played) -> None:
        async with played.following():
            await played.far.put("k1", "", None, BANNED)
            await played.bans({"k1": BANNED})
            for data in (b"", b"garbage", b"\x91\xa4bans", b"\x92\xa5other\x01", b"\x91\xa1\xff"):
                await played.other.publish(CREDENTIALS_CHANNEL, data)
            await played.far.put("k1", "", BANNED, DEAD)
            await played.bans({"k1": DEAD}, POLL_S / 2)

    play(url, tmp_path, story)


def test_a_redis_that_was_emptied_changes_nothing_and_gets_the_bans_back(url: str, tmp_path: Path) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A, B, replace=Replace.WHOLE)
        await played.far.put("k1", "", None, BANNED)
        async with played.following():
            await played.has(A, B)
            await played.bans({"k1": BANNED})
            await played.other.flushall()

            async def put_back() -> bool:
                return decode_ban(await played.other.hget(BANS, "k1") or b"") == BANNED

            await until(put_back)
            assert (len(played.told.credentials), len(played.told.bans)) == (2, 1)
            await played.publish(2, B, C, replace=Replace.WHOLE)
            await played.has(B, C)

    play(url, tmp_path, story)


def test_many_bans_are_put_back_without_delay(url: str, tmp_path: Path) -> None:
    """A second for each hundred of them would be too long."""
    count = 10 * OFFERS_MAX

    async def story(played: Played) -> None:
        await played.other.hset(BANS, mapping={f"k{number}": encode_ban(BANNED) for number in range(count)})
        await played.other.set(BANS_VERSION, count)
        async with played.following():
            await played.bans({f"k{number}": BANNED for number in range(count)})
            await played.other.flushall()

            async def put_back() -> bool:
                return await played.other.hlen(BANS) == count  # type: ignore[no-any-return]

            await until(put_back)
            await played.far.put("far", "", None, DEAD)

            async def heard() -> bool:
                return ("far", "") in played.told.bans

            await until(heard, POLL_S)
            assert len(played.told.bans) == count + 1

    play(url, tmp_path, story)


def test_a_redis_that_was_restarted_without_its_data_is_followed_again(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}"
        async with connected(url, CALL_S) as client, connected(url) as other:
            played = Played(client, other, tmp_path / "credentials.msgpack")
            async with played.following():
                with server(tmp_path / "first", port=port):
                    await played.publish(1, A, replace=Replace.WHOLE)
                    await played.far.put("k1", "", None, BANNED)
                    await played.has(A)
                    await played.bans({"k1": BANNED})
                with server(tmp_path / "second", port=port):
                    await close_idle(other)
                    await played.publish(1, A, B, replace=Replace.WHOLE)
                    await played.has(A, B)
                    assert (await played.far.put("k2", "", None, DEAD)).won
                    await played.bans({"k1": BANNED, "k2": DEAD})

                    async def put_back() -> bool:
                        return await other.hlen(BANS) == 2  # type: ignore[misc,unused-ignore]

                    await until(put_back)

    asyncio.run(main())


def test_a_redis_that_is_frozen_holds_nothing_up_and_is_followed_again(tmp_path: Path) -> None:
    async def main() -> None:
        with server(tmp_path) as port:
            url = f"redis://127.0.0.1:{port}"
            async with connected(url, CALL_S) as client, connected(url) as other:
                played = Played(client, other, tmp_path / "credentials.msgpack")
                await played.publish(1, A, replace=Replace.WHOLE)
                pid = (await other.info("server"))["process_id"]
                async with played.following():
                    await played.has(A)
                    os.kill(pid, signal.SIGSTOP)
                    try:

                        async def given_up() -> bool:
                            return not played.feed.bans._guard.available

                        await until(given_up)
                        assert played.told.credentials == {"k1": A}
                    finally:
                        os.kill(pid, signal.SIGCONT)
                    await played.publish(2, B)
                    await played.far.put("k1", "", None, BANNED)
                    await played.has(A, B)
                    await played.bans({"k1": BANNED})

    asyncio.run(main())


def test_a_user_that_fails_is_told_and_everything_is_given_to_it_anew(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a-secret")

    async def story(played: Played) -> None:
        await played.publish(1, A, replace=Replace.WHOLE)
        await played.far.put("k1", "", None, BANNED)
        with monkeypatch.context() as patched:
            patched.setattr(played.told, "credentials_changed", fail)
            patched.setattr(played.told, "ban_changed", fail)
            async with played.following():

                async def told() -> bool:
                    return "bans are read anew" in caplog.text and "credentials are read anew" in caplog.text

                await until(told)
                patched.undo()
                await played.has(A)
                await played.bans({"k1": BANNED})
        assert "a-secret" not in caplog.text

    play(url, tmp_path, story)
