"""The state machine against a model of it, and the guard against a real Redis that stops, returns and is frozen."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions as redis_errors
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.shared_state.breaker import Admission, Breaker, Guard, State, StoreUnavailable, unavailable_reason
from tests.redis_servers import connected, redis_at, until

FAILURES_MAX = 3
OPEN_S = 1.0


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin and end in any order while time passes; the laws hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock, FAILURES_MAX, OPEN_S)
        self.running: list[tuple[Admission, State]] = []
        self.opened_s = 0.0
        self.unavailable_s: float | None = None

    @rule(step_s=st.sampled_from([0.0, 0.3, 0.5, 1.0, 5.0]))
    def time_passes(self, step_s: float) -> None:
        self.clock.now_s += step_s

    @rule()
    def begin(self) -> None:
        before = self.breaker.state
        admission = self.breaker.admit()
        match before:
            case State.CLOSED:
                assert admission is not None
            case State.HALF_OPEN:
                assert admission is None
            case State.OPEN:
                assert (admission is not None) == (self.clock.now_s >= self.opened_s + OPEN_S)
        if admission is not None:
            self.running.append((admission, self.breaker.state))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        before = self.breaker.state
        gone_s = self.breaker.succeeded(self._end(data))
        if gone_s is not None:
            assert (before, self.breaker.state) == (State.HALF_OPEN, State.CLOSED)
            assert self.unavailable_s is not None
            assert gone_s == self.clock.now_s - self.unavailable_s
            self.unavailable_s = None

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        before = self.breaker.state
        if self.breaker.failed(self._end(data)):
            assert (before, self.breaker.state) == (State.CLOSED, State.OPEN)
            self.unavailable_s = self.clock.now_s
        if before is not State.OPEN and self.breaker.state is State.OPEN:
            self.opened_s = self.clock.now_s

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        before = self.breaker.state
        self.breaker.abandoned(self._end(data))
        if before is State.HALF_OPEN and self.breaker.state is State.OPEN:
            self.opened_s = self.clock.now_s - OPEN_S
        else:
            assert self.breaker.state is before

    @invariant()
    def half_open_has_one_probe(self) -> None:
        probes = [state for admission, state in self.running if state is State.HALF_OPEN and self._counts(admission)]
        assert len(probes) == (self.breaker.state is State.HALF_OPEN)

    @invariant()
    def unavailability_was_announced(self) -> None:
        assert (self.breaker.state is State.CLOSED) == (self.unavailable_s is None)

    def _end(self, data: st.DataObject) -> Admission:
        admission, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        return admission

    def _counts(self, admission: Admission) -> bool:
        return admission == self.breaker._period


TestBreaker = BreakerMachine.TestCase


def test_only_failures_in_a_row_open_it() -> None:
    breaker = Breaker(Clock(), FAILURES_MAX, OPEN_S)
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        outcome(admitted(breaker))
        assert breaker.state is State.CLOSED
    assert breaker.failed(admitted(breaker))
    assert breaker.state is State.OPEN
    assert breaker.admit() is None


def test_a_call_from_before_the_opening_says_nothing_after_it() -> None:
    clock = Clock()
    breaker = Breaker(clock, 1, OPEN_S)
    early, opening = admitted(breaker), admitted(breaker)
    breaker.failed(opening)
    assert breaker.succeeded(early) is None
    assert breaker.state is State.OPEN
    clock.now_s = OPEN_S
    probe = admitted(breaker)
    assert not breaker.failed(early)
    assert breaker.succeeded(probe) == OPEN_S


def admitted(breaker: Breaker) -> Admission:
    admission = breaker.admit()
    assert admission is not None
    return admission


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timeout"),
        (redis_errors.TimeoutError(), "timeout"),
        (redis_errors.AuthenticationError(), "credentials"),
        (redis_errors.ConnectionError(), "connection"),
        (ConnectionResetError(), "connection"),
        (redis_errors.BusyLoadingError(), "loading"),
        (redis_errors.ReadOnlyError(), "read_only"),
        (redis_errors.ClusterDownError("CLUSTERDOWN x"), "cluster_down"),
        (redis_errors.RedisClusterException("All slots are not covered after query"), "cluster_down"),
        (redis_errors.ResponseError("MISCONF Errors writing to the AOF file"), "disk"),
        (redis_errors.ResponseError("WRONGTYPE Operation against a key"), None),
        (redis_errors.RedisClusterException("No way to dispatch this command"), None),
        (redis_errors.NoScriptError(), None),
        (KeyError(), None),
    ],
)
def test_the_reason_is_one_word(error: Exception, reason: str | None) -> None:
    assert unavailable_reason(error) == reason


def test_an_error_of_the_call_passes_through(redis_url: str, prefix: str) -> None:
    async def dialogue() -> None:
        async with connected(redis_url) as client:
            guard = Guard(client, Breaker(failures_max=1), 5.0)
            await guard.call(lambda: client.set(f"{prefix}text", "x"))
            for _ in range(3):
                with pytest.raises(redis_errors.ResponseError):
                    await guard.call(lambda: client.incr(f"{prefix}text"))
            with pytest.raises(KeyError):
                await guard.call(broken)
            assert guard.available

    asyncio.run(dialogue())


async def broken() -> None:
    raise KeyError


def test_an_error_before_anything_was_asked_is_no_answer(redis_url: str) -> None:
    async def dialogue() -> None:
        async with connected(redis_url) as client:
            clock = Clock()
            breaker = Breaker(clock, 1, OPEN_S)
            guard = Guard(client, breaker, 5.0)
            breaker.failed(admitted(breaker))
            clock.now_s = OPEN_S
            with pytest.raises(KeyError):
                await guard.call(broken)
            assert not guard.available
            await guard.call(client.ping)  # the next one is the probe
            assert guard.available

    asyncio.run(dialogue())


def test_a_probe_that_its_caller_gives_up_leaves_its_place_to_the_next(redis_url: str) -> None:
    async def dialogue() -> None:
        async with connected(redis_url) as client:
            clock = Clock()
            breaker = Breaker(clock, 1, OPEN_S)
            guard = Guard(client, breaker, 5.0)
            breaker.failed(admitted(breaker))
            clock.now_s = OPEN_S
            asked = asyncio.Event()

            async def wait() -> None:
                asked.set()
                await asyncio.Event().wait()

            probe = asyncio.ensure_future(guard.call(wait))
            await asked.wait()
            with pytest.raises(StoreUnavailable, match="open"):
                await guard.call(client.ping)
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
            await guard.call(client.ping)
            assert guard.available

    asyncio.run(dialogue())


@pytest.mark.parametrize("command", ["PING", "NONSENSE"])
def test_a_cancellation_is_heard_whenever_it_comes(redis_url: str, command: str) -> None:
    """redis-py loses one that comes as a command has been written, whether an answer or an error follows."""

    async def dialogue() -> None:
        async with connected(redis_url) as client:
            guard = Guard(client, Breaker(), 5.0)
            await guard.call(client.ping)
            for turns in range(1, 12):
                call = asyncio.ensure_future(guard.call(lambda: client.execute_command(command)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if call.cancel():
                    await asyncio.wait([call])
                    assert call.cancelled(), turns

    asyncio.run(dialogue())


@pytest.fixture
def frozen_redis(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A server of the test's own, to be stopped and continued with signals; and its process id."""
    with redis_at("embedded", tmp_path) as url:
        pid = int((tmp_path / "server.lock").read_text())
        try:
            yield url, pid
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_frozen_redis_costs_one_deadline_a_second_and_one_line(
    frozen_redis: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    url, pid = frozen_redis
    caplog.set_level(logging.INFO, "relaygate")

    async def dialogue() -> None:
        clock = Clock()
        async with connected(url, deadline_s=0.1) as client:
            guard = Guard(client, Breaker(clock, FAILURES_MAX, OPEN_S), 0.1)
            await until(lambda: answers(guard, client.ping))
            os.kill(pid, signal.SIGSTOP)
            for _ in range(FAILURES_MAX):
                with pytest.raises(StoreUnavailable, match="timeout"):
                    await guard.call(client.ping)
            for _ in range(100):
                with pytest.raises(StoreUnavailable, match="open"):
                    await guard.call(client.ping)
            clock.now_s = OPEN_S
            with pytest.raises(StoreUnavailable, match="timeout"):
                await guard.call(client.ping)
            os.kill(pid, signal.SIGCONT)
            clock.now_s = 3.5 * OPEN_S

            async def again() -> bool:
                clock.now_s += OPEN_S if not guard.available else 0.0
                return await answers(guard, client.ping)

            await until(again)

    asyncio.run(dialogue())
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "redis is unavailable: timeout"
    assert lines[1].startswith("redis is available again after ")
    assert len(lines) == 2
    assert not any(record.exc_info for record in caplog.records)


async def answers(guard: Guard, ask: Callable[[], Awaitable[Any]]) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await guard.call(ask)
        return True
    return False


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(frozen_redis: tuple[str, int]) -> None:
    url, pid = frozen_redis

    async def dialogue() -> None:
        async with connected(url, deadline_s=0.1) as client:
            guard = Guard(client, Breaker(Clock(), 1000), 0.1)
            heard: Any = None

            async def ask(number: int) -> None:
                nonlocal heard
                heard = await client.echo(f"now {number}")

            await until(lambda: answers(guard, client.ping))
            for number in range(10):
                os.kill(pid, signal.SIGSTOP)
                with pytest.raises(StoreUnavailable, match="timeout"):
                    await guard.call(lambda number=number: client.echo(f"late {number}"))  # type: ignore[misc]
                os.kill(pid, signal.SIGCONT)
                await until(lambda number=number: answers(guard, lambda: ask(number)))  # type: ignore[misc]
                assert heard == b"now %d" % number

    asyncio.run(dialogue())


def test_an_idle_connection_to_a_lost_redis_is_given_up_with_it(frozen_redis: tuple[str, int]) -> None:
    url, pid = frozen_redis

    async def dialogue() -> None:
        async with connected(url, deadline_s=0.1) as client, connected(url) as other:
            guard = Guard(client, Breaker(Clock(), 1), 5.0)
            await asyncio.gather(*(client.ping() for _ in range(20)), return_exceptions=True)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(StoreUnavailable):
                await guard.call(client.ping)
            os.kill(pid, signal.SIGCONT)
            assert await other.info("clients")
            await until(lambda: alone(other))

    async def alone(client: Any) -> bool:
        return len(await client.client_list()) == 1

    asyncio.run(dialogue())


def test_a_server_that_is_not_there_has_a_word(tmp_path: Path) -> None:
    async def dialogue() -> None:
        async with connected(f"unix://{tmp_path}/nothing.sock") as client:
            with pytest.raises(StoreUnavailable, match="connection"):
                await Guard(client, Breaker()).call(client.ping)

    asyncio.run(dialogue())
