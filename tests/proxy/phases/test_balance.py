"""Requests on routes with an upstream of several backends: which one has them, and which one next."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from proxy.config import Backend, Balancer, Ejection, Protocols, Upstream
from proxy.errors import CONNECT_REFUSED, CONNECT_TIMEOUT, RelayError
from proxy.phases.balance import asks_for_events
from proxy.pipeline import relay
from proxy.snapshot import Balance, Snapshot
from tests.proxy.asgi import Client, balanced_snapshot, play, turns
from tests.proxy.asgi import Upstream as Played

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
ORDERED = Balancer.WEIGHT
"""With equal weights its turns are the order of the settings."""


@pytest.fixture(autouse=True)
def _in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without chance, turns begin with the first."""
    monkeypatch.setattr("proxy.upstream.group.random.random", lambda: 0.5)


def group_of(*hosts: str, **settings: Any) -> Upstream:
    backends = tuple(Backend(url=f"http://{host}", id=host) for host in hosts or ("a", "b", "c"))
    return Upstream(backends=backends, **{"balancer": ORDERED, **settings})


def balance_of(snapshot: Snapshot) -> Balance:
    found = snapshot.routes.match(b"/up")
    assert found is not None
    assert found[0].balance is not None
    return found[0].balance


def running(snapshot: Snapshot) -> dict[str, int]:
    return {member.id: member.running for member in balance_of(snapshot).group.members}


async def begin(snapshot: Snapshot, client: Client | None = None, **request: Any) -> asyncio.Task[None]:
    """A request on its way, as far as it gets without an answer."""
    task = asyncio.create_task(relay((client or Client()).exchange(**request), snapshot))
    await turns()
    return task


async def answered(upstream: Played, snapshot: Snapshot, answer: bytes = OK, **request: Any) -> str:
    """The host that one request went to, which has been answered."""
    before = len(upstream.connections)
    task = await begin(snapshot, **request)
    number = before if len(upstream.connections) > before else next_busy(upstream)
    upstream.answer(answer, number)
    await task
    return upstream.hosts[number]


def next_busy(upstream: Played) -> int:
    """The youngest connection with a request that has not been answered."""
    return max(number for number, one in enumerate(upstream.connections) if not one.complete)


def test_requests_are_spread_and_each_asks_for_its_backends_own_host(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of(), base="/base")
        for _ in range(6):
            await answered(upstream, snapshot, path=b"/up/x", query=b"q=1")
        assert upstream.hosts == ["a", "b", "c"], "their connections are kept"
        for number, host in enumerate((b"a", b"b", b"c")):
            sent = upstream.wire(number).sent
            assert sent.count(b"GET /base/x?q=1 HTTP/1.1\r\nhost: " + host + b"\r\n") == 2
        assert running(snapshot) == {"a": 0, "b": 0, "c": 0}

    play(dialogue)


def test_the_clients_host_is_kept_where_the_route_says_so(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a"), preserve_host=True)
        await answered(upstream, snapshot)
        assert b"host: relay.example\r\n" in upstream.wire(0).sent

    play(dialogue)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_backend_that_is_not_reached_is_passed_over_whatever_the_method(upstream: Played, method: str) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of())
        upstream.down = {"a": RelayError(CONNECT_REFUSED), "b": RelayError(CONNECT_TIMEOUT)}
        client = Client()
        client.put(b"hello", more=True)
        headers = [] if method == "GET" else [(b"transfer-encoding", b"chunked")]
        task = await begin(snapshot, client, method=method, headers=headers)
        assert upstream.hosts == ["c"]
        assert method == "GET" or upstream.wire(0).sent.endswith(b"5\r\nhello\r\n"), "nothing of the body is lost"
        client.put(b"", more=False)
        await turns()
        upstream.answer(OK)
        await task
        assert client.status == 200
        assert running(snapshot) == {"a": 0, "b": 0, "c": 0}

    play(dialogue)


def test_when_no_backend_is_reached_the_last_cause_is_told(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a", "b"))
        upstream.down = {"a": RelayError(CONNECT_REFUSED), "b": RelayError(CONNECT_TIMEOUT)}
        with pytest.raises(RelayError, match="connect_timeout"):
            await (await begin(snapshot))
        assert running(snapshot) == {"a": 0, "b": 0}

    play(dialogue)


def test_without_retries_nothing_goes_to_another_backend(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of(retry_max=0))
        upstream.down = {"a": RelayError(CONNECT_REFUSED)}
        with pytest.raises(RelayError, match="connect_refused"):
            await (await begin(snapshot))
        client = Client()
        task = await begin(snapshot, client)
        upstream.answer(BUSY)
        await task
        assert (client.status, client.body) == (503, b"busy")

    play(dialogue)


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("failure", ["closed", "busy"])
def test_an_idempotent_request_that_fails_goes_to_another_backend(upstream: Played, method: str, failure: str) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of())
        client = Client()
        client.put(b"hel", more=True)
        client.put(b"lo", more=False)
        headers = [(b"content-length", b"5")] if method == "PUT" else []
        task = await begin(snapshot, client, method=method, headers=headers)
        sent = upstream.wire(0).sent
        if failure == "closed":
            upstream.close()
        else:
            upstream.answer(BUSY)
        await turns()
        assert upstream.hosts == ["a", "b"]
        assert sent.replace(b"host: a", b"host: b") == upstream.wire(1).sent
        upstream.answer(OK)
        await task
        assert (client.status, client.body) == (200, b"hello")
        assert running(snapshot) == {"a": 0, "b": 0, "c": 0}

    play(dialogue)


@pytest.mark.parametrize("failure", ["closed", "busy"])
def test_a_post_that_was_sent_does_not(upstream: Played, failure: str) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of())
        client = Client()
        task = await begin(snapshot, client, method="POST")
        if failure == "closed":
            upstream.close()
            with pytest.raises(RelayError, match="closed"):
                await task
        else:
            upstream.answer(BUSY)
            await task
            assert (client.status, client.body) == (503, b"busy")
        assert upstream.hosts == ["a"]

    play(dialogue)


def test_an_answer_that_has_begun_is_not_asked_for_again(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of())
        client = Client()
        task = await begin(snapshot, client)
        upstream.answer(OK[:-2])
        await turns()
        upstream.close()
        with pytest.raises(RelayError, match="truncated"):
            await task
        assert (upstream.hosts, client.body) == (["a"], b"hel")
        assert running(snapshot) == {"a": 0, "b": 0, "c": 0}

    play(dialogue)


def test_a_body_that_is_too_long_to_be_kept_is_sent_once(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of(retry_body_bytes_max=4))
        client = Client()
        client.put(b"hello", more=True)
        task = await begin(snapshot, client, method="PUT", headers=[(b"content-length", b"6")])
        client.put(b"!", more=False)
        await turns()
        upstream.answer(BUSY)
        await task
        assert (client.status, upstream.hosts) == (503, ["a"])

    play(dialogue)


def test_the_last_answer_is_relayed_when_all_that_may_be_asked_have_been(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a", "b", "c", "d", retry_max=2))
        client = Client()
        task = await begin(snapshot, client)
        for _ in range(3):
            upstream.answer(BUSY)
            await turns()
        await task
        assert (client.status, client.body) == (503, b"busy")
        assert upstream.hosts == ["a", "b", "c"]

    play(dialogue)


def test_other_statuses_are_the_clients(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of())
        client = Client()
        task = await begin(snapshot, client)
        upstream.answer(BUSY.replace(b"503", b"500"))
        await task
        assert (client.status, upstream.hosts) == (500, ["a"])

    play(dialogue)


def test_an_idle_close_that_crosses_a_request_is_no_fault_of_the_backends(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a", ejection=Ejection(failures=1)))
        await answered(upstream, snapshot)
        client = Client()
        task = await begin(snapshot, client)
        upstream.close()
        await turns()
        assert upstream.hosts == ["a", "a"], "on a fresh connection"
        upstream.answer(OK)
        await task
        assert client.status == 200

    play(dialogue)


def test_a_backend_that_keeps_failing_is_left_alone_and_comes_back(upstream: Played) -> None:
    async def dialogue() -> None:
        settings = Ejection(failures=2, ejection_s=0.2)
        snapshot = balanced_snapshot(group_of("a", "b", ejection=settings, retry_max=0))
        upstream.down = {"a": RelayError(CONNECT_REFUSED)}
        for _ in range(2):
            with pytest.raises(RelayError):
                await (await begin(snapshot))
            await answered(upstream, snapshot)
        assert {await answered(upstream, snapshot) for _ in range(4)} == {"b"}
        upstream.down = {}
        await asyncio.sleep(0.25)
        balance_of(snapshot).group.tick()
        assert {await answered(upstream, snapshot) for _ in range(4)} == {"a", "b"}

    play(dialogue)


def test_at_their_cap_backends_have_requests_wait_in_their_order(upstream: Played) -> None:
    async def dialogue() -> None:
        backends = tuple(Backend(url=f"http://{host}", id=host, max_connections=1) for host in "ab")
        snapshot = balanced_snapshot(Upstream(backends=backends, queue_max=2, queue_wait_s=2))
        first, second, third, fourth = [await begin(snapshot) for _ in range(4)]
        assert sorted(upstream.hosts) == ["a", "b"]
        with pytest.raises(RelayError, match="backends_busy"):
            await (await begin(snapshot))
        upstream.answer(OK, 1)
        await second
        await turns()
        assert [task.done() for task in (third, fourth)] == [False, False]
        fourth.cancel()
        await asyncio.wait([fourth])
        upstream.answer(OK, 1)
        await third
        upstream.answer(OK, 0)
        await first
        assert len(upstream.connections) == 2
        assert running(snapshot) == {"a": 0, "b": 0}

    play(dialogue)


def test_a_wait_has_an_end(upstream: Played) -> None:
    async def dialogue() -> None:
        backends = (Backend(url="http://a", id="a", max_connections=1),)
        snapshot = balanced_snapshot(Upstream(backends=backends, queue_wait_s=0.05))
        first = await begin(snapshot)
        with pytest.raises(RelayError, match="backends_busy"):
            await (await begin(snapshot))
        upstream.answer(OK)
        await first
        assert running(snapshot) == {"a": 0}

    play(dialogue)


@pytest.mark.parametrize(
    "backend", [Backend(url="http://a", id="a", active=False), Backend(url="http://a", id="a", draining=True)]
)
def test_without_a_backend_that_is_well_nobody_waits(upstream: Played, backend: Backend) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(Upstream(backends=(backend,)))
        with pytest.raises(RelayError, match="no_backend"):
            await (await begin(snapshot))
        assert upstream.hosts == []

    play(dialogue)


def test_backends_of_a_higher_number_wait_for_those_of_the_lowest_to_fail(upstream: Played) -> None:
    async def dialogue() -> None:
        backends = tuple(
            Backend(url=f"http://{host}", id=host, priority=priority) for host, priority in (("a", 0), ("b", 1))
        )
        snapshot = balanced_snapshot(Upstream(backends=backends, ejection=Ejection(failures=1)))
        assert {await answered(upstream, snapshot) for _ in range(4)} == {"a"}
        group = balance_of(snapshot).group
        group.use_states(frozenset({"a"}), {})
        assert {await answered(upstream, snapshot) for _ in range(4)} == {"b"}
        group.use_states(frozenset(), {})
        assert {await answered(upstream, snapshot) for _ in range(4)} == {"a"}

    play(dialogue)


def test_one_client_meets_one_backend_by_its_address(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of(balancer=Balancer.IP_HASH))
        (first,) = {await answered(upstream, snapshot) for _ in range(5)}
        group = balance_of(snapshot).group
        group.use_states(frozenset({first}), {})
        (other,) = {await answered(upstream, snapshot) for _ in range(5)}
        assert other != first
        group.use_states(frozenset(), {})
        assert {await answered(upstream, snapshot) for _ in range(5)} == {first}

    play(dialogue)


def test_an_event_stream_may_be_balanced_otherwise(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of(protocols=Protocols(sse=Balancer.IP_HASH)))
        accept = [(b"accept", b"text/event-stream")]
        events = Counter([await answered(upstream, snapshot, headers=accept) for _ in range(6)])
        others = Counter([await answered(upstream, snapshot) for _ in range(6)])
        assert sorted(events.values()) == [6]
        assert sorted(others.values()) == [2, 2, 2]

    play(dialogue)


@pytest.mark.parametrize(
    ("value", "asks"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; q=1, */*", True),
        (b"*/*", False),
        (b"application/json", False),
    ],
)
def test_what_asks_for_an_event_stream(value: bytes, *, asks: bool) -> None:
    assert asks_for_events([(b"host", b"x"), (b"accept", value)]) is asks


def test_a_storm_of_failures_does_not_become_twice_as_large(upstream: Played) -> None:
    """All that run at the moment may go out again, and then a share of what comes."""

    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of(ejection=Ejection(failures=None), retry_share=0.2, retry_max=1))
        attempts = 0
        for _ in range(200):
            task = await begin(snapshot)
            while not task.done():
                upstream.answer(BUSY, next_busy(upstream))
                attempts += 1
                await turns()
        assert 200 < attempts <= 200 + 10 + 0.2 * 200

    play(dialogue)


def test_a_backend_that_is_removed_keeps_what_it_has_begun(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a", "b"))
        group = balance_of(snapshot).group
        client = Client()
        task = await begin(snapshot, client)
        group.use(group_of("b"))
        assert {await answered(upstream, snapshot) for _ in range(3)} == {"b"}
        upstream.answer(OK, 0)
        await task
        assert client.status == 200
        assert running(snapshot) == {"b": 0}
        assert group.running == 0

    play(dialogue)


def test_it_is_remembered_which_backends_a_request_had_and_why_not_others(upstream: Played) -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a", "b", "c", "d"))
        balance_of(snapshot).group.use_states(frozenset({"c"}), {})
        upstream.down = {"a": RelayError(CONNECT_REFUSED)}
        task = await begin(snapshot)
        upstream.answer(BUSY)
        await turns()
        upstream.answer(OK)
        await task
        (trace,) = balance_of(snapshot).key_pool.traces.latest()
        told = [(one.backend, one.status, str(one.says), one.error) for one in trace.tries]
        assert told == [
            ("a", 0, "failed", "connect_refused"),
            ("b", 503, "failed", ""),
            ("d", 200, "success", ""),
        ]
        looks = [(look.total, look.usable, look.tried, look.passed_over, look.chosen) for look in trace.backends]
        assert looks == [(4, 3, 1, {"unhealthy": 1}, "b"), (4, 3, 2, {"unhealthy": 1}, "d")]
        assert (trace.algorithm, trace.ending) == ("weight", "")
        assert trace.began_s < trace.tries[0].ended_s

    play(dialogue)


def test_it_is_remembered_why_no_backend_had_a_request() -> None:
    async def dialogue() -> None:
        snapshot = balanced_snapshot(group_of("a", "b"))
        balance_of(snapshot).group.use_states(frozenset({"a", "b"}), {})
        with pytest.raises(RelayError, match="no_backend"):
            await (await begin(snapshot))
        (trace,) = balance_of(snapshot).key_pool.traces.latest()
        assert (trace.ending, trace.tries) == ("no_backend", [])
        assert [look.passed_over for look in trace.backends] == [{"unhealthy": 2}]

    play(dialogue)
