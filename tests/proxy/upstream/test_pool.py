"""The pool: whose turn it is, what a place is, and that no place is ever lost or invented."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.config import UpstreamTls
from proxy.errors import CONNECT_REFUSED, RelayError, TargetRefused
from proxy.upstream import pool as pool_module
from proxy.upstream.connect import Origin
from proxy.upstream.connection import Connection
from proxy.upstream.pool import TELL_AGAIN_S, Pool, Pools
from proxy.upstream.tls import SessionContext
from tests.proxy.upstream.wire import Wire

IDLE_S = 60.0
WAIT_S = 5.0


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test moves."""

    shift_s = 0.0

    def time(self) -> float:
        return super().time() + self.shift_s


class Upstreams:
    """Stands in for `connect`: a test says when a connection is made, or that it is refused."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []
        self.at_once = True

    async def connect(self, _origin: Origin, _context: SessionContext | None) -> Connection:
        loop = asyncio.get_running_loop()
        if not self.at_once:
            asked = loop.create_future()
            self.asked.append(asked)
            await asked
        connection = Connection(loop, 4096)
        connection.connection_made(Wire())
        return connection

    def waiting(self) -> list[asyncio.Future[None]]:
        return [asked for asked in self.asked if not asked.done()]


def origin_with(host: str = "up.example", connections: int = 2, wait_s: float = WAIT_S) -> Origin:
    return Origin(host, 80, None, None, 4096, connections, wait_s, IDLE_S, allow_private_targets=False)


def use(connection: Connection, fields: bytes = b"") -> Connection:
    """One exchange, from its beginning to its clean end."""
    connection.begin("GET")
    connection.finish_request()
    connection.receive(memoryview(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + fields + b"\r\n"))
    assert connection.reusable
    return connection


def break_off(connection: Connection) -> Connection:
    """One exchange that has no end."""
    connection.begin("GET")
    return connection


def lose(connection: Connection) -> None:
    """The upstream closes the connection."""
    connection.connection_lost(None)


def is_aborted(connection: Connection) -> bool:
    assert isinstance(connection._transport, Wire)
    return connection._transport.aborted


async def get(pool: Pool) -> Connection:
    return pool.take() or await pool.fresh()


@pytest.fixture
def upstreams(monkeypatch: pytest.MonkeyPatch) -> Upstreams:
    upstreams = Upstreams()
    monkeypatch.setattr(pool_module, "connect", upstreams.connect)
    return upstreams


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def play(loop: Loop, dialogue: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(1000):
            await dialogue()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.run_until_complete(main())


async def turns(number: int = 3) -> None:
    """Lets everything run that can."""
    for _ in range(number):
        await asyncio.sleep(0)


pytestmark = pytest.mark.usefixtures("upstreams")


def test_the_youngest_idle_connection_is_used_first(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(), loop)
        first, second = await get(pool), await get(pool)
        assert (first is second, pool.open) == (False, 2)
        pool.give_back(use(first))
        pool.give_back(use(second))
        assert pool.take() is second
        assert pool.take() is first
        assert pool.take() is None
        assert pool.open == 2

    play(loop, dialogue)


def test_at_the_cap_requests_queue_and_are_served_in_their_order(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(), loop)
        used = [await get(pool), await get(pool)]
        queued = [asyncio.create_task(get(pool)) for _ in range(2)]
        await turns()
        assert [task.done() for task in queued] == [False, False]
        pool.give_back(use(used[0]))
        assert pool.take() is None, "nobody overtakes the queue"
        assert await queued[0] is used[0]
        pool.give_back(use(used[1]))
        assert await queued[1] is used[1]
        assert pool.open == 2

    play(loop, dialogue)


def test_a_connection_that_ends_leaves_its_place_to_the_next_in_the_queue(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=1), loop)
        first = await get(pool)
        queued = asyncio.create_task(get(pool))
        await turns()
        pool.give_back(break_off(first))
        assert is_aborted(first)
        second = await queued
        assert second is not first
        assert pool.open == 1
        pool.give_back(break_off(second))
        assert pool.open == 0

    play(loop, dialogue)


def test_a_request_waits_for_a_place_no_longer_than_it_may(loop: Loop) -> None:
    """C65."""

    async def dialogue() -> None:
        pool = Pool(origin_with(connections=1, wait_s=0.01), loop)
        used = await get(pool)
        with pytest.raises(RelayError, match="pool_full"):
            await get(pool)
        pool.give_back(use(used))
        assert pool.take() is used
        assert pool.open == 1

    play(loop, dialogue)


def test_no_more_requests_queue_than_there_are_connections(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=2), loop)
        used = [await get(pool), await get(pool)]
        queued = [asyncio.create_task(get(pool)) for _ in range(2)]
        await turns()
        with pytest.raises(RelayError, match="pool_full"):
            await get(pool)
        for connection, task in zip(used, queued, strict=True):
            pool.give_back(use(connection))
            assert await task is connection

    play(loop, dialogue)


def test_a_refused_connection_leaves_its_place_to_the_next(loop: Loop, upstreams: Upstreams) -> None:
    async def dialogue() -> None:
        upstreams.at_once = False
        pool = Pool(origin_with(connections=1), loop)
        first, second = (asyncio.create_task(get(pool)) for _ in range(2))
        await turns()
        upstreams.asked[0].set_exception(RelayError(CONNECT_REFUSED))
        with pytest.raises(RelayError, match="connect_refused"):
            await first
        await turns()
        assert pool.open == 1
        upstreams.asked[1].set_result(None)
        await second
        assert pool.open == 1

    play(loop, dialogue)


def test_a_refused_target_is_told_once_a_minute_for_each_origin(
    loop: Loop, upstreams: Upstreams, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(pool: Pool, why: str) -> None:
        upstreams.at_once = False
        asking = asyncio.create_task(get(pool))
        await turns()
        upstreams.asked[-1].set_exception(TargetRefused(why))
        with pytest.raises(RelayError, match="target_refused"):
            await asking
        assert pool.open == 0

    async def dialogue() -> None:
        pool, other = Pool(origin_with("a.example"), loop), Pool(origin_with("b.example"), loop)
        for _ in range(5):
            await refuse(pool, "10.0.0.1 is private")
        await refuse(other, "::1 is loopback")
        allows = "server.allow_private_targets: true allows it"
        told = [
            f"target a.example refused: 10.0.0.1 is private; {allows}",
            f"target b.example refused: ::1 is loopback; {allows}",
        ]
        assert caplog.messages == told
        loop.shift_s += TELL_AGAIN_S - 1
        await refuse(pool, "10.0.0.2 is private")
        assert caplog.messages == told
        loop.shift_s += 1
        await refuse(pool, "10.0.0.3 is private")
        assert caplog.messages[2:] == [f"target a.example refused: 10.0.0.3 is private; {allows}"]
        assert {record.levelname for record in caplog.records} == {"WARNING"}

    play(loop, dialogue)


@pytest.mark.parametrize("next_in_queue", [0, 1])
def test_a_request_that_is_cancelled_while_it_connects_gives_its_place_back(
    loop: Loop, upstreams: Upstreams, next_in_queue: int
) -> None:
    async def dialogue() -> None:
        upstreams.at_once = False
        pool = Pool(origin_with(connections=1), loop)
        connecting = asyncio.create_task(get(pool))
        await turns()
        queued = [asyncio.create_task(get(pool)) for _ in range(next_in_queue)]
        await turns()
        connecting.cancel()
        await turns()
        assert connecting.cancelled()
        assert pool.open == next_in_queue
        for task in queued:
            upstreams.asked[-1].set_result(None)
            pool.give_back(break_off(await task))
        assert pool.open == 0

    play(loop, dialogue)


def test_a_request_that_is_cancelled_in_the_queue_leaves_it(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=1), loop)
        used = await get(pool)
        queued = asyncio.create_task(get(pool))
        await turns()
        queued.cancel()
        await turns()
        pool.give_back(use(used))
        assert (pool.open, pool.take()) == (1, used)

    play(loop, dialogue)


@pytest.mark.parametrize("clean", ["clean", "broken"])
def test_a_request_that_is_cancelled_as_its_turn_comes_passes_its_turn_on(loop: Loop, clean: str) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=2), loop)
        used, other = await get(pool), await get(pool)
        queued, behind = (asyncio.create_task(get(pool)) for _ in range(2))
        await turns()
        pool.give_back(use(used) if clean == "clean" else break_off(used))
        queued.cancel()
        await turns()
        assert queued.cancelled()
        served = await behind
        assert (served is used) is (clean == "clean")
        assert pool.open == 2
        pool.give_back(use(served))
        pool.give_back(break_off(other))
        assert (pool.open, pool.take()) == (1, served)

    play(loop, dialogue)


def test_a_request_that_is_cancelled_as_its_time_is_up_is_only_cancelled(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=1), loop)
        used = await get(pool)
        queued = asyncio.create_task(get(pool))
        await turns()
        pool._give_up(pool._queue[0])
        queued.cancel()
        await turns()
        assert queued.cancelled()
        pool.give_back(break_off(used))
        assert pool.open == 0

    play(loop, dialogue)


def test_a_connection_that_closes_on_its_way_to_the_next_is_replaced(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=1), loop)
        used = await get(pool)
        queued = asyncio.create_task(get(pool))
        await turns()
        pool.give_back(use(used))
        lose(used)
        fresh = await queued
        assert fresh is not used
        assert not fresh.closed
        assert pool.open == 1

    play(loop, dialogue)


def test_an_idle_connection_that_the_upstream_closed_is_skipped(loop: Loop) -> None:
    """C60."""

    async def dialogue() -> None:
        pool = Pool(origin_with(), loop)
        first, second = await get(pool), await get(pool)
        pool.give_back(use(first))
        pool.give_back(use(second))
        lose(second)
        assert pool.take() is first
        assert pool.open == 1
        pool.give_back(use(first))
        lose(first)
        assert pool.take() is None
        assert pool.open == 0

    play(loop, dialogue)


@pytest.mark.parametrize(
    ("announced", "idle_s"),
    [(b"", IDLE_S), (b"Keep-Alive: timeout=5\r\n", 4), (b"Keep-Alive: timeout=900\r\n", IDLE_S)],
)
def test_a_connection_idles_as_long_as_both_sides_allow(loop: Loop, announced: bytes, idle_s: float) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(), loop)
        connection = await get(pool)
        pool.give_back(use(connection, announced))
        loop.shift_s += idle_s - 0.5
        pool.sweep(loop.time())
        assert pool.take() is connection
        pool.give_back(use(connection, announced))
        loop.shift_s += idle_s + 0.5
        assert pool.take() is None
        assert is_aborted(connection)
        assert pool.open == 0

    play(loop, dialogue)


def test_an_upstream_that_announces_no_time_at_all_is_not_used_again(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(), loop)
        pool.give_back(use(await get(pool), b"Keep-Alive: timeout=0\r\n"))
        assert pool.take() is None
        assert pool.open == 0

    play(loop, dialogue)


def test_a_sweep_closes_what_has_idled_too_long_and_forgets_what_is_closed(loop: Loop) -> None:
    async def dialogue() -> None:
        pools = Pools(loop)
        pool = pools.get(origin_with(connections=3))
        old, lost, young = [await get(pool) for _ in range(3)]
        pool.give_back(use(old))
        loop.shift_s += IDLE_S / 2
        pool.give_back(use(lost))
        pool.give_back(use(young))
        lose(lost)
        loop.shift_s += IDLE_S / 2 + 1
        pools.sweep()
        assert (is_aborted(old), is_aborted(young)) == (True, False)
        assert pool.open == 1
        assert pool.take() is young

    play(loop, dialogue)


def test_a_retired_pool_closes_what_idles_now_and_the_rest_when_it_comes_back(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(), loop)
        idle, used = await get(pool), await get(pool)
        pool.give_back(use(idle))
        pool.retire()
        assert (is_aborted(idle), is_aborted(used)) == (True, False)
        assert pool.open == 1
        pool.give_back(use(used))
        assert is_aborted(used)
        assert pool.open == 0

    play(loop, dialogue)


def test_a_request_that_waits_for_a_retired_pool_is_served_all_the_same(loop: Loop) -> None:
    async def dialogue() -> None:
        pool = Pool(origin_with(connections=1), loop)
        used = await get(pool)
        queued = asyncio.create_task(get(pool))
        await turns()
        pool.retire()
        pool.give_back(use(used))
        served = await queued
        assert served is not used
        pool.give_back(use(served))
        assert (is_aborted(served), pool.open) == (True, 0)

    play(loop, dialogue)


def test_equal_origins_share_a_pool_and_a_reload_keeps_those_that_stay(loop: Loop) -> None:
    async def dialogue() -> None:
        pools = Pools(loop)
        kept, dropped = pools.get(origin_with("kept")), pools.get(origin_with("dropped"))
        assert pools.get(origin_with("kept")) is kept
        assert pools.get(origin_with("kept", wait_s=1)) is not kept
        idle = await get(dropped)
        dropped.give_back(use(idle))
        pools.keep_only({kept})
        assert is_aborted(idle)
        assert pools.get(kept.origin) is kept
        assert pools.get(dropped.origin) is not dropped

    play(loop, dialogue)


def test_unusable_tls_files_are_told_when_the_pool_is_made(loop: Loop) -> None:
    tls = UpstreamTls(ca="/nowhere/ca.pem")
    with pytest.raises(OSError, match="No such file"):
        Pools(loop).get(origin_with()._replace(tls=tls))


# ---- any order of events --------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Requests come, end, fail and are cancelled in any order, and several of them within one turn of the loop."""

    CAP = 2

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.upstreams = Upstreams()
        self.upstreams.at_once = False
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(pool_module, "connect", self.upstreams.connect)
        self.pool = Pool(origin_with(connections=self.CAP, wait_s=1000), self.loop)
        self.requests: list[asyncio.Task[None]] = []
        self.used: list[Connection] = []

    async def _request(self) -> None:
        self.used.append(await get(self.pool))

    @rule()
    def turn(self) -> None:
        self.loop.run_until_complete(turns())

    @rule()
    def ask(self) -> None:
        self.requests.append(self.loop.create_task(self._request()))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        pending = [request for request in self.requests if not request.done()]
        if pending:
            data.draw(st.sampled_from(pending)).cancel()

    @precondition(lambda self: self.upstreams.waiting())
    @rule(refused=st.booleans())
    def connect(self, refused: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        asked = self.upstreams.waiting()[0]
        if refused:
            asked.set_exception(RelayError(CONNECT_REFUSED))
        else:
            asked.set_result(None)

    @precondition(lambda self: self.used)
    @rule(data=st.data(), clean=st.booleans())
    def give_back(self, data: st.DataObject, clean: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        connection = self.used.pop(data.draw(st.integers(0, len(self.used) - 1)))
        self.pool.give_back(use(connection) if clean and not connection.closed else break_off(connection))

    @precondition(lambda self: self.used or self.pool._idle)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        lose(data.draw(st.sampled_from([*self.used, *self.pool._idle])))

    @rule()
    def sweep(self) -> None:
        self.loop.shift_s += IDLE_S / 2
        self.pool.sweep(self.loop.time())

    @invariant()
    def the_cap_holds(self) -> None:
        assert 0 <= self.pool.open <= self.CAP
        assert len(self.used) + len(self.pool._idle) + len(self.upstreams.waiting()) <= self.pool.open

    @invariant()
    def nobody_waits_while_a_place_is_free(self) -> None:
        waiting = [waiter for waiter in self.pool._queue if not waiter.done()]
        if waiting:
            assert self.pool.open == self.CAP
            assert not self.pool._idle

    async def _end(self) -> None:
        for request in self.requests:
            request.cancel()
        for result in await asyncio.gather(*self.requests, return_exceptions=True):
            assert result is None or isinstance(result, RelayError | asyncio.CancelledError)
        for connection in self.used:
            self.pool.give_back(break_off(connection))
        assert self.pool.open == len(self.pool._idle)
        assert not self.pool._queue

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self._end())
        finally:
            self.patch.undo()
            self.loop.close()


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase
