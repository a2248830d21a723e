"""The bans of a worker: what it finds holds at once, and one of all workers writes each change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from proxy.key_pool.ban_book import ATTEMPTS_MAX, Alone, BanBook, Field, Report
from proxy.rules.bans import Answered, with_probe
from proxy.rules.credentials import Ban, BanCause, Says, Verdict
from proxy.shared_state.linked_key_pool import Put
from tests.proxy.key_pool.stores import Away, Clock

FIELD: Field = ("key", "")
LIMITED = Verdict(Says.RATE_LIMITED, 60.0)


class SlowStore:
    """A store whose answers a test lets through one by one."""

    def __init__(self) -> None:
        self.ban: Ban | None = None
        self.gate = asyncio.Semaphore(0)
        self.puts = 0
        self.error: Exception | None = None

    async def put(self, credential: str, model: str, expected: Ban | None, new: Ban | None) -> Put:  # noqa: ARG002
        await self.gate.acquire()
        return self.take(expected, new)

    def take(self, expected: Ban | None, new: Ban | None) -> Put:
        self.puts += 1
        if self.error is not None:
            raise self.error
        if self.ban != expected:
            return Put(False, self.ban)
        self.ban = new
        return Put(True, new)


class FarStore(SlowStore):
    """One that acts at once, and whose answers are slow."""

    async def put(self, credential: str, model: str, expected: Ban | None, new: Ban | None) -> Put:  # noqa: ARG002
        answer = self.take(expected, new)
        await self.gate.acquire()
        return answer


class Told:
    """A book, with what it has told of."""

    def __init__(self, store: SlowStore) -> None:
        self.clock = Clock()
        self.changed: list[Field] = []
        self.written: list[Ban | None] = []
        self.book = BanBook(
            store, Away, self.clock, self.changed.append, lambda _field, _before, ban: self.written.append(ban)
        )

    def report(self, verdict: Verdict = LIMITED, status: int = 429) -> None:
        now_s = self.clock.now_s
        self.book.report(FIELD, Report(verdict, Answered(now_s, now_s, status)))


def play(
    dialogue: Callable[[SlowStore, Told], Awaitable[None]], make_store: Callable[[], SlowStore] = SlowStore
) -> None:
    async def main() -> None:
        store = make_store()
        told = Told(store)
        async with asyncio.timeout(5):
            await dialogue(store, told)
            store.gate = asyncio.Semaphore(1000)
            await told.book.close()

    asyncio.run(main())


async def settled(store: SlowStore, answers: int = 1) -> None:
    for _ in range(answers):
        store.gate.release()
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_was_found_holds_before_it_is_written() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        told.report()
        assert told.book.get(FIELD) is not None
        assert told.changed == [FIELD]
        assert (store.ban, told.written) == (None, [])
        await settled(store)
        assert store.ban == told.book.get(FIELD)
        assert told.written == [store.ban]

    play(dialogue)


def test_who_loses_takes_what_is_there_and_decides_again() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        now_s = told.clock.now_s
        store.ban = Ban(BanCause.COUNTING, now_s, now_s + 60, 2, now_s, status=401)
        told.report(Verdict(Says.UNAUTHORIZED), 401)
        await settled(store, 2)
        assert store.ban is not None
        assert store.ban.failures == 3
        assert told.book.get(FIELD) == store.ban
        assert told.written == [], "counting is no ban"

    play(dialogue)


def test_a_store_that_never_agrees_is_given_up() -> None:
    async def dialogue(store: SlowStore, _told: Told) -> None:
        class Contrary(SlowStore):
            async def put(self, *_: object) -> Put:
                self.puts += 1
                return Put(False, Ban(BanCause.COUNTING, 0, 0, self.puts, 0))

        contrary = Contrary()
        other = Told(contrary)
        other.report()
        await settled(store)
        await other.book.close()
        assert contrary.puts == ATTEMPTS_MAX

    play(dialogue)


def test_failures_while_one_is_being_written_go_out_together() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        for _ in range(4):
            told.report(Verdict(Says.UNAUTHORIZED), 401)
        await settled(store)
        assert store.puts == 1
        assert store.ban is not None
        assert store.ban.failures == 4
        told.report(Verdict(Says.UNAUTHORIZED), 401)
        await settled(store)
        assert store.ban.cause is BanCause.DEAD

    play(dialogue)


def test_a_report_that_comes_while_another_is_written_is_not_lost() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        told.report(Verdict(Says.UNAUTHORIZED), 401)
        await asyncio.sleep(0)
        told.report(Verdict(Says.UNAUTHORIZED), 401)
        await settled(store, 2)
        assert store.ban is not None
        assert store.ban.failures == 2

    play(dialogue)


@pytest.mark.parametrize("error", [Away(), ValueError("out of order")])
def test_without_a_store_the_worker_knows_what_it_knows(error: Exception) -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        store.error = error
        told.report()
        await settled(store)
        ban = told.book.get(FIELD)
        assert ban is not None
        assert ban.cause is BanCause.RATE_LIMITED

    play(dialogue)


def test_a_probe_is_nobody_s_while_the_ban_lasts_and_one_s_afterwards() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        told.report()
        await settled(store)
        assert await told.book.claim(FIELD) == 0.0
        told.clock.now_s += 61
        store.gate.release()
        until_s = await told.book.claim(FIELD)
        assert until_s > told.clock.now_s
        assert await told.book.claim(FIELD) == 0.0

    play(dialogue)


async def left(store: SlowStore, told: Told) -> None:
    """A client asks for a probe, and leaves while the store is being asked."""
    told.report()
    await settled(store)
    told.clock.now_s += 61
    client = asyncio.create_task(told.book.claim(FIELD))
    await settled(store, 0)
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client


def test_a_probe_whose_client_leaves_before_it_has_it_is_the_next_ones() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        await left(store, told)
        await settled(store, 2)
        assert store.ban == told.book.get(FIELD)
        assert store.ban is not None
        assert store.ban.probe_until_s == 0.0
        store.gate.release()
        assert await told.book.claim(FIELD) > told.clock.now_s

    play(dialogue, FarStore)


def test_a_probe_that_is_given_back_begins_no_ban(caplog: pytest.LogCaptureFixture) -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        await left(store, told)
        await settled(store, 2)
        assert store.puts == 3
        assert told.written == [told.written[0]]

    play(dialogue, FarStore)
    assert [message for message in caplog.messages if "put aside" in message] == caplog.messages[:1]


def test_a_probe_that_another_worker_has_is_not_given_back() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        await left(store, told)
        assert store.ban is not None
        theirs = store.ban = with_probe(store.ban, told.clock.now_s, 20)
        await settled(store, 2)
        assert store.ban is theirs
        assert told.book.get(FIELD) == theirs

    play(dialogue)


@pytest.mark.parametrize("error", [Away(), ValueError("out of order")])
def test_a_probe_is_given_back_without_a_store_too(error: Exception) -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        await left(store, told)
        store.error = error
        await settled(store, 2)
        ban = told.book.get(FIELD)
        assert ban is not None
        assert ban.probe_until_s == 0.0

    play(dialogue)


def test_a_book_closes_when_a_probe_is_given_back() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        await left(store, told)
        for _ in range(2):
            store.gate.release()
        await told.book.close()
        assert store.puts == 3, "the ban, its probe, and the end of that"
        assert store.ban is not None
        assert store.ban.probe_until_s == 0.0

    play(dialogue)


def test_a_ban_that_another_worker_lifted_is_lifted() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        told.report()
        await settled(store)
        told.book.heard(FIELD, None)
        assert told.book.get(FIELD) is None
        assert len(told.book) == 0
        assert told.book.of("key") == []

    play(dialogue)


def test_a_credential_that_is_gone_leaves_no_ban() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        told.report()
        await settled(store)
        told.book.forget("key")
        assert told.book.get(FIELD) is None
        assert told.book.of("key") == []

    play(dialogue)


def test_many_bans_at_once_are_a_few_lines_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        book = BanBook(Alone(), Away, Clock(), lambda _: None, lambda *_: None)
        with caplog.at_level(logging.INFO):
            for number in range(50):
                book.report((f"key{number}", ""), Report(LIMITED, Answered(1.0, 1.0, 429)))
            await book.close()
            book.tick()
            book.tick()

    asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 11
    assert lines[0] == "credential key0 is put aside: rate_limited (429), for 60 s"
    assert lines[-1] == "credentials: 40 further bans began or ended within a second"


def test_a_ban_that_ended_long_ago_and_that_nobody_asks_for_goes() -> None:
    async def dialogue(store: SlowStore, told: Told) -> None:
        store.gate = asyncio.Semaphore(1000)
        told.report()
        await settled(store)
        for wait_s, there in [(61, True), (told.book.settings.ban_max_s, False)]:
            told.clock.now_s += wait_s
            told.book.tick()
            await settled(store)
            assert (store.ban is not None, len(told.book) > 0) == (there, there)
        assert told.written[-1] is None

    play(dialogue)
