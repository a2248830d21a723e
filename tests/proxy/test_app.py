"""The application as a server calls it: lifespan, requests, and what becomes of those that fail."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy import app
from proxy.app import Relay, fail
from proxy.config import Config, Redis, Route, Server, UpstreamTls
from proxy.errors import CONNECT_REFUSED, NOT_READY, TRUNCATED, RelayError
from proxy.exchange import Message
from proxy.statistics import Counts, RouteCounts
from proxy.worker import Worker
from tests.proxy.asgi import Client, Upstream, http_scope, play, turns
from tests.proxy.counting import taken

ROUTES = {"/up": Route(target="http://up.example/base")}


class Lifespan:
    """A server's side of an application's life."""

    def __init__(self, relay: Relay) -> None:
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self.said: list[Message] = []
        self.task = asyncio.create_task(relay({"type": "lifespan"}, self._events.get, self._say))

    async def _say(self, message: Message) -> None:
        self.said.append(message)

    async def tell(self, what: str) -> str:
        self._events.put_nowait({"type": f"lifespan.{what}"})
        await turns()
        kind: str = self.said[-1]["type"]
        return kind.removeprefix("lifespan.")


class Served:
    """A relay that has started, and clients that come to it."""

    def __init__(self, config: Config, reload: Callable[[], Config] | None = None) -> None:
        self.relay = Relay(config, reload or (lambda: config))
        self.lifespan = Lifespan(self.relay)

    async def ask(self, client: Client, **request: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(self.relay(http_scope(**request), client.receive, client.send))
        await turns()
        return task

    async def answer(self, **request: Any) -> Client:
        """The relay's own answer to a request."""
        client = Client()
        await (await self.ask(client, **request))
        assert client.has_ended()
        return client


def serve(dialogue: Callable[[Served], Any], config: Config | None = None, **settings: Any) -> None:
    async def main() -> None:
        served = Served(config or Config(server=Server(**settings), routes=ROUTES))
        assert await served.lifespan.tell("startup") == "startup.complete"
        await dialogue(served)
        worker = served.relay._worker
        assert worker.in_flight == 0
        assert await served.lifespan.tell("shutdown") == "shutdown.complete"
        await served.lifespan.task

    play(main)


def error_of(client: Client) -> tuple[int, str]:
    return client.status, json.loads(client.body)["error"]["type"]


def test_a_request_is_relayed_and_forgotten(upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        client = Client()
        task = await served.ask(client, path=b"/up/x")
        assert served.relay._worker.in_flight == 1
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await task
        assert (client.status, client.body) == (200, b"hello")

    serve(dialogue)


def test_a_configuration_that_cannot_be_used_is_no_start() -> None:
    async def main() -> None:
        bad = Config(routes={"/a": Route(target="https://a", tls=UpstreamTls(ca="/nowhere/ca.pem"))})
        served = Served(bad)
        assert await served.lifespan.tell("startup") == "startup.failed"
        assert "No such file" in served.lifespan.said[0]["message"]
        await served.lifespan.task

    play(main)


def test_the_relays_own_answers_say_what_is_wrong(upstream: Upstream) -> None:
    """C80."""

    async def dialogue(served: Served) -> None:
        assert error_of(await served.answer(path=b"/nowhere")) == (404, "no_route")
        assert error_of(await served.answer(path=b"/up/..")) == (400, "bad_target")
        assert error_of(await served.answer(method="CONNECT")) == (405, "method_not_allowed")
        assert error_of(await served.answer(path=b"/healthz", method="POST")) == (405, "method_not_allowed")
        upstream.error = RelayError(CONNECT_REFUSED)
        assert error_of(await served.answer(path=b"/up")) == (502, "connect_refused")
        assert (await served.answer(path=b"/healthz")).status == 200
        assert (await served.answer(path=b"/readyz")).status == 200

    serve(dialogue)


def test_every_answer_carries_a_request_id_of_its_own_or_the_clients() -> None:
    """C82."""

    async def dialogue(served: Served) -> None:
        ids = [dict((await served.answer(path=b"/nowhere")).headers)[b"x-request-id"] for _ in range(2)]
        assert ids[0] != ids[1]
        mine = await served.answer(path=b"/nowhere", headers=[(b"x-request-id", b"mine")])
        assert dict(mine.headers)[b"x-request-id"] == b"mine"

    serve(dialogue)


def test_a_failure_of_the_relay_itself_is_told_without_its_reason(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    async def dialogue(served: Served) -> None:
        upstream.error = ZeroDivisionError("CANARY")
        client = await served.answer(path=b"/up")
        assert error_of(client) == (500, "internal")
        assert b"CANARY" not in client.body
        assert "CANARY" in caplog.text

    serve(dialogue)


def test_requests_over_the_limit_are_told_to_come_again(upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        client = Client()
        held = await served.ask(client, path=b"/up")
        assert error_of(await served.answer(path=b"/up")) == (503, "overloaded")
        upstream.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
        await held
        assert client.status == 204

    serve(dialogue, max_connections=1)


@pytest.mark.parametrize(("version", "holds"), [("1", True), ("1.1", True), ("2", False)])
def test_a_request_has_a_connection_to_itself_but_in_http_2(upstream: Upstream, version: str, *, holds: bool) -> None:
    async def dialogue(served: Served) -> None:
        assert not served.relay.holds_connections()
        task = await served.ask(Client(), path=b"/up/x", version=version, headers=[(b"content-length", b"0")])
        assert served.relay._worker.in_flight == 1
        assert served.relay.holds_connections() is holds
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await task
        assert not served.relay.holds_connections()

    serve(dialogue)


def test_a_client_that_leaves_ends_its_request_and_its_upstream(upstream: Upstream) -> None:
    """C63."""

    async def dialogue(served: Served) -> None:
        client = Client()
        task = await served.ask(client, path=b"/up")
        wire = upstream.wire()
        served.relay._worker._tick()
        client.leave()
        await asyncio.wait([task])
        assert not task.cancelled(), "the server is told of no failure"
        assert client.got == []
        assert wire.aborted

    serve(dialogue)


def test_a_broken_body_is_a_bad_request() -> None:
    async def dialogue(served: Served) -> None:
        client = Client()
        client.leave()
        await (await served.ask(client, path=b"/up", method="POST", headers=[(b"content-length", b"5")]))
        assert error_of(client) == (400, "bad_request")

    serve(dialogue)


@pytest.mark.parametrize("started", [False, True])
def test_what_the_drain_breaks_off_is_told_or_cut(upstream: Upstream, *, started: bool) -> None:
    """C68."""

    async def dialogue(served: Served) -> None:
        client = Client()
        task = await served.ask(client, path=b"/up")
        if started:
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
            await turns()
        served.relay._worker.end_drain()
        await task
        if started:
            assert not client.has_ended()
        else:
            assert error_of(client) == (503, "draining")

    serve(dialogue)


def test_a_response_that_has_begun_is_cut_and_never_ended_by_the_relay(upstream: Upstream) -> None:
    """C44."""

    async def dialogue(served: Served) -> None:
        client = Client()
        task = await served.ask(client, path=b"/up")
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        upstream.close()
        await task
        assert (client.status, client.body, client.has_ended()) == (200, b"hel", False)

    serve(dialogue)


def test_a_failure_is_an_answer_only_while_none_has_begun() -> None:
    async def main() -> None:
        client = Client()
        exchange = client.exchange()
        await fail(exchange, TRUNCATED)
        assert error_of(client) == (502, "truncated")
        await fail(exchange, NOT_READY)
        assert len(client.got) == 2
        assert (exchange.cause, exchange.truncated) == (NOT_READY, True)

    play(main)


@pytest.mark.parametrize("started", [False, True])
def test_of_what_the_drain_breaks_off_only_a_begun_response_is_truncated(
    upstream: Upstream, capfdbinary: pytest.CaptureFixture[bytes], *, started: bool
) -> None:
    async def dialogue(served: Served) -> None:
        task = await served.ask(Client(), path=b"/up")
        if started:
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
            await turns()
        served.relay._worker.end_drain()
        await task

    serve(dialogue, access_log=True)
    line = json.loads(capfdbinary.readouterr().out)
    assert (line["status"], line["error"], line["truncated"]) == (200 if started else 503, "draining", started)


def test_every_request_is_written_down_if_the_log_is_on(
    upstream: Upstream, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async def dialogue(served: Served) -> None:
        await served.answer(path=b"/nowhere", query=b"key=CANARY")
        client = Client()
        task = await served.ask(client, path=b"/up")
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        upstream.close()
        await task
        task = await served.ask(client, path=b"/up")
        served.relay._worker._tick()
        client.leave()
        await task

    serve(dialogue, access_log=True)
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [(line["status"], line["error"], line["truncated"]) for line in lines] == [
        (404, "no_route", False),
        (200, "truncated", True),
        (0, None, True),
    ]
    assert lines[0]["target"] == "/nowhere?key=***"


def test_signals_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Worker, "begin_drain", lambda _: told.append("drain"))
    monkeypatch.setattr(Worker, "end_drain", lambda _: told.append("deadline"))
    monkeypatch.setattr(Worker, "reload", lambda _: told.append("reload"))

    async def dialogue(_served: Served) -> None:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(number)
            await asyncio.sleep(0.01)
        assert told == ["reload", "drain", "deadline"]

    serve(dialogue)


# ---- statistics -----------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """Settings with somebody to tell what is counted, who is not asked."""

    async def nobody(_config: Config, _worker: Worker) -> None:
        return None

    monkeypatch.setattr(app, "linked", nobody)
    return Config(redis=Redis(url="redis://nobody.example"), data_dir=str(tmp_path), routes=ROUTES)


def counted(served: Served) -> dict[str, dict[str, Counts]]:
    """What each prefix was counted under since the last look."""
    return {row.prefix: row.outcomes for row in rows(served)}


def rows(served: Served) -> list[RouteCounts]:
    tallies = served.relay._worker.tallies
    assert tallies is not None
    return taken(tallies)


def test_a_relayed_request_is_counted_with_its_bytes_and_times(counting: Config, upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        client = Client()
        client.put(b"abc", more=False)
        task = await served.ask(client, path=b"/up", method="POST", headers=[(b"content-length", b"3")])
        assert counted(served) == {}, "a request counts at its end"
        upstream.answer(b"HTTP/1.1 201 OK\r\nContent-Length: 5\r\n\r\nhel")
        await turns()
        upstream.answer(b"lo")
        await task
        (row,) = rows(served)
        assert (row.prefix, row.authority) == ("/up", "up.example")
        assert row.outcomes == {"2xx": Counts(requests=1, request_bytes=3, response_bytes=5)}
        assert (row.durations.count, row.heads.count) == (1, 1)
        assert (row.overheads.count, row.upstreams.count) == (1, 1)
        assert 0 < row.overheads.sum_us <= row.heads.sum_us <= row.durations.sum_us
        assert abs(row.overheads.sum_us + row.upstreams.sum_us - row.durations.sum_us) <= 1
        assert rows(served) == []

    serve(dialogue, counting)


def test_the_relays_own_answers_are_counted_by_their_word(counting: Config, upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        await served.answer(path=b"/nowhere/1")
        await served.answer(path=b"/nowhere/2")
        await served.answer(method="CONNECT")
        await served.answer(path=b"/up/..")
        upstream.error = RelayError(CONNECT_REFUSED)
        await served.answer(path=b"/up")
        upstream.error = ZeroDivisionError()
        await served.answer(path=b"/up")
        unmatched, routed = rows(served)
        assert (unmatched.prefix, routed.prefix) == ("", "/up")
        assert unmatched.outcomes == {"no_route": Counts(requests=2), "method_not_allowed": Counts(requests=1)}
        assert routed.outcomes == {word: Counts(requests=1) for word in ("bad_target", "connect_refused", "internal")}
        assert (unmatched.durations.count, unmatched.heads.count) == (3, 0)
        assert (routed.durations.count, routed.heads.count) == (3, 0)

    serve(dialogue, counting)


def test_health_is_not_counted(counting: Config) -> None:
    async def dialogue(served: Served) -> None:
        await served.answer(path=b"/healthz")
        await served.answer(path=b"/readyz", method="POST")
        assert counted(served) == {}

    serve(dialogue, counting)


def test_a_request_over_the_limit_is_counted_without_a_route(counting: Config, upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        held = await served.ask(Client(), path=b"/up")
        await served.answer(path=b"/up")
        assert counted(served) == {"": {"overloaded": Counts(requests=1)}}
        upstream.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
        await held
        assert counted(served) == {"/up": {"2xx": Counts(requests=1)}}

    serve(dialogue, msgspec.structs.replace(counting, server=Server(max_connections=1)))


@pytest.mark.parametrize("started", [False, True])
def test_a_client_that_leaves_is_counted_once(counting: Config, upstream: Upstream, *, started: bool) -> None:
    async def dialogue(served: Served) -> None:
        client = Client()
        task = await served.ask(client, path=b"/up")
        if started:
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
            await turns()
        served.relay._worker._tick()
        client.leave()
        await task
        expected = Counts(requests=1, response_bytes=3, truncated=1) if started else Counts(requests=1)
        assert counted(served) == {"/up": {"client_left": expected}}

    serve(dialogue, counting)


@pytest.mark.parametrize("started", [False, True])
def test_what_the_drain_breaks_off_is_counted_once(counting: Config, upstream: Upstream, *, started: bool) -> None:
    async def dialogue(served: Served) -> None:
        task = await served.ask(Client(), path=b"/up")
        if started:
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
            await turns()
        served.relay._worker.end_drain()
        await task
        expected = Counts(requests=1, response_bytes=3, truncated=1) if started else Counts(requests=1)
        assert counted(served) == {"/up": {"draining": expected}}

    serve(dialogue, counting)


def test_a_truncation_a_retry_and_a_broken_body_are_counted_once(counting: Config, upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        task = await served.ask(Client(), path=b"/up")
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await task
        retried = await served.ask(Client(), path=b"/up")
        upstream.close()
        await turns()
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        upstream.close()
        await retried
        client = Client()
        client.put(b"abc", more=True)
        client.leave()
        await (await served.ask(client, path=b"/up", method="POST", headers=[(b"content-length", b"5")]))
        assert counted(served) == {
            "/up": {
                "2xx": Counts(requests=1, response_bytes=5),
                "truncated": Counts(requests=1, response_bytes=2, retries=1, truncated=1),
                "bad_request": Counts(requests=1, request_bytes=3),
            }
        }

    serve(dialogue, counting)


def test_a_refused_handshake_is_counted_once(counting: Config) -> None:
    async def dialogue(served: Served) -> None:
        await refused(served)
        assert counted(served) == {"": {"no_route": Counts(requests=1)}}
        served.relay._worker.draining = True
        await refused(served)
        assert counted(served) == {"": {"draining": Counts(requests=1)}}

    serve(dialogue, counting)


def test_counts_survive_a_reload_and_end_with_what_is_switched_off(counting: Config, upstream: Upstream) -> None:
    configs = [counting, msgspec.structs.replace(counting, server=Server(statistics=False))]

    async def dialogue(served: Served) -> None:
        worker = served.relay._worker
        running = await served.ask(Client(), path=b"/up")
        await served.answer(path=b"/up/..")
        worker.reload()
        await served.answer(path=b"/up/..")
        worker.reload()
        await served.answer(path=b"/up/..")
        upstream.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
        await running
        assert counted(served) == {"/up": {"bad_target": Counts(requests=2), "2xx": Counts(requests=1)}}

    async def main() -> None:
        reloads = iter(configs)
        served = Served(configs[0], lambda: next(reloads))
        await served.lifespan.tell("startup")
        await dialogue(served)
        await served.lifespan.tell("shutdown")
        await served.lifespan.task

    play(main)


def test_figures_are_answered_where_they_are_wanted_and_there_are_any(counting: Config) -> None:
    async def dialogue(served: Served) -> None:
        assert error_of(await served.answer(path=b"/stats")) == (503, "no_statistics")
        served.relay._worker.summary = b'{"total":7}'
        found = await served.answer(path=b"/stats", query=b"x=1")
        assert (found.status, found.body) == (200, b'{"total":7}')
        assert dict(found.headers)[b"content-type"] == b"application/json"
        assert error_of(await served.answer(path=b"/stats", method="POST")) == (405, "method_not_allowed")
        assert counted(served) == {}

    serve(dialogue, msgspec.structs.replace(counting, server=Server(stats_path="/stats")))


def test_a_request_that_outlives_its_connection_is_counted_before_the_end(counting: Config, upstream: Upstream) -> None:
    async def main() -> None:
        served = Served(counting)
        await served.lifespan.tell("startup")
        await served.ask(Client(), path=b"/up")
        assert len(upstream.connections) == 1
        assert await served.lifespan.tell("shutdown") == "shutdown.complete"
        await served.lifespan.task
        assert counted(served) == {"/up": {"client_left": Counts(requests=1)}}

    play(main)


# ---- WebSockets that come to nothing --------------------------------------------------------------------------------


async def refused(served: Served) -> tuple[int, str]:
    client = Client()
    scope = http_scope(path=b"/nowhere") | {"type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    await served.relay(scope, client.receive, client.send)
    assert client.got[0]["type"] == "websocket.http.response.start"
    return error_of(client)


def test_a_handshake_that_cannot_be_relayed_is_refused() -> None:
    async def dialogue(served: Served) -> None:
        assert await refused(served) == (404, "no_route")
        served.relay._worker.draining = True
        assert await refused(served) == (503, "draining")

    serve(dialogue)


class Leaving(Client):
    """It has the whole answer and is gone before whoever sent it knows."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if "body" in message:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)


@pytest.mark.parametrize(("kind", "scheme"), [("http", "http"), ("websocket", "ws")])
def test_a_client_that_leaves_with_its_refusal_is_no_error(
    kind: str, scheme: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async def dialogue(served: Served) -> None:
        client = Leaving()
        scope = http_scope(path=b"/nowhere") | {"type": kind, "scheme": scheme, "subprotocols": []}
        await asyncio.create_task(served.relay(scope, client.receive, client.send))
        assert error_of(client) == (404, "no_route")

    serve(dialogue, access_log=True)
    line = json.loads(capfdbinary.readouterr().out)
    assert (line["status"], line["error"], line["truncated"]) == (404, "no_route", False)


def test_handshakes_over_the_limit_are_refused(upstream: Upstream) -> None:
    async def dialogue(served: Served) -> None:
        held = await served.ask(Client(), path=b"/up")
        assert await refused(served) == (503, "overloaded")
        upstream.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
        await held

    serve(dialogue, max_connections=1)
