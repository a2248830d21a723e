"""What a worker tells of its credentials, on a real server: each number once, all that fits, and nothing for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from loadtests.processes import free_port
from proxy.rules.credentials import BanCause
from proxy.shared_state import credential_reporter, events
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import connect
from proxy.shared_state.credential_events import KIND as CREDENTIALS
from proxy.shared_state.credential_events import BanChange, CredentialCounts, CredentialsDelta
from proxy.shared_state.credential_reporter import BANS_MAX, COUNTS_MAX, CredentialReporter
from proxy.shared_state.event_stream import EventStream
from proxy.shared_state.events import DATA, KIND
from proxy.shared_state.keys import EVENTS
from tests.proxy.shared_state.key_pools import Figures
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until

BAN = BanChange("k1", "", BanCause.DEAD, 1.0, 2.0, 401, 1)


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the stream has a fixed name."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@asynccontextmanager
async def reporting(url: str, figures: Figures) -> AsyncIterator[CredentialReporter]:
    client = connect(url, deadline_s=DEADLINE_S)
    try:
        guard = Guard(client, Breaker(), DEADLINE_S)
        yield CredentialReporter(EventStream(client, guard), "worker", figures)
    finally:
        await client.aclose()


def play(url: str, story: Callable[[Any, Figures, CredentialReporter], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        figures = Figures()
        async with connected(url) as client, reporting(url, figures) as reporter:
            await client.flushall()
            await story(client, figures, reporter)

    asyncio.run(main())


async def deltas(client: Any) -> list[CredentialsDelta]:
    found = await client.xrange(EVENTS)
    assert all(fields[KIND] == CREDENTIALS for _, fields in found)
    return [msgspec.msgpack.decode(fields[DATA], type=CredentialsDelta) for _, fields in found]


def test_what_there_is_is_told_once(url: str) -> None:
    async def story(client: Any, figures: Figures, reporter: CredentialReporter) -> None:
        assert await reporter.beat() == ""
        assert await deltas(client) == []
        counts = CredentialCounts("k1", 2, 1, 1, 3.0, "failed", 3.0, 500)
        figures.counts, figures.bans = [counts], [BAN]
        await reporter.beat()
        await reporter.beat()
        figures.bans = [BAN]
        await reporter.finish()
        assert await deltas(client) == [
            CredentialsDelta("worker", 1, [counts], [BAN]),
            CredentialsDelta("worker", 2, [], [BAN]),
        ]

    play(url, story)


def test_it_tells_once_a_second(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_reporter, "BEAT_S", 0.01)

    async def story(client: Any, figures: Figures, reporter: CredentialReporter) -> None:
        async with beside(reporter.run()):
            for number in range(1, 4):
                figures.bans = [BAN]

                async def told(number: int = number) -> bool:
                    return len(await deltas(client)) == number

                await until(told)

    play(url, story)


def test_very_many_are_told_in_several_deltas(url: str) -> None:
    async def story(client: Any, figures: Figures, reporter: CredentialReporter) -> None:
        figures.counts = [CredentialCounts(f"k{number}", 1) for number in range(2 * COUNTS_MAX + 1)]
        figures.bans = [BAN] * (COUNTS_MAX + 1)
        await reporter.beat()
        found = await deltas(client)
        sizes = [(each.sequence, len(each.counts), len(each.bans)) for each in found]
        assert sizes == [(1, COUNTS_MAX, COUNTS_MAX), (2, COUNTS_MAX, 1), (3, 1, 0)]
        assert len({counts.id for each in found for counts in each.counts}) == 2 * COUNTS_MAX + 1

    play(url, story)


def test_what_was_not_confirmed_is_sent_again_as_it_was_and_the_rest_adds_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(client: Any, figures: Figures, reporter: CredentialReporter) -> None:
        add = EventStream.add

        async def unconfirmed(stream: EventStream, kind: bytes, data: bytes) -> None:
            await add(stream, kind, data)
            raise OSError("no answer")

        figures.counts = [CredentialCounts("k1", 1)]
        monkeypatch.setattr(EventStream, "add", unconfirmed)
        assert await reporter.beat() == "OSError: no answer"
        figures.counts = [CredentialCounts("k1", 5)]
        assert await reporter.beat() == "OSError: no answer"
        monkeypatch.undo()
        assert await reporter.beat() == ""
        first = CredentialsDelta("worker", 1, [CredentialCounts("k1", 1)], [])
        assert await deltas(client) == [first] * 3 + [CredentialsDelta("worker", 2, [CredentialCounts("k1", 5)], [])]

    play(url, story)


def test_while_the_stream_is_full_counts_are_left_where_they_add_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_MAX", 1)

    async def story(client: Any, figures: Figures, reporter: CredentialReporter) -> None:
        figures.counts = [CredentialCounts("k1", 1)]
        await reporter.beat()
        figures.counts, figures.bans = [CredentialCounts("k1", 2)], [BAN]
        await reporter.beat()
        assert (len(figures.counts), figures.bans) == (1, [])
        await client.delete(EVENTS)
        await reporter.beat()
        assert await deltas(client) == [CredentialsDelta("worker", 2, [CredentialCounts("k1", 2)], [BAN])]

    play(url, story)


def test_without_redis_the_latest_changes_of_bans_wait_and_the_end_does_not() -> None:
    async def main() -> None:
        figures = Figures()
        async with reporting(f"redis://127.0.0.1:{free_port()}", figures) as reporter:
            figures.counts = [CredentialCounts("k1", 1)]
            for number in range(3):
                figures.bans = [BanChange(f"k{number}", "", None, 1.0)] * (BANS_MAX // 2)
                assert await reporter.beat() == ""
            assert len(figures.counts) == 1
            assert len(reporter._bans) == BANS_MAX
            assert reporter._bans[0].id == "k1"
            await reporter.finish()

    asyncio.run(main())


def test_a_refusal_is_told_once(url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(credential_reporter, "BEAT_S", 0.01)

    async def story(client: Any, figures: Figures, reporter: CredentialReporter) -> None:
        await client.set(EVENTS, "no stream")
        figures.bans = [BAN]
        async with beside(reporter.run()):
            await asyncio.sleep(0.2)
            await client.delete(EVENTS)
            await until(lambda: deltas(client))

    play(url, story)
    assert caplog.text.count("not told to redis") == 1
