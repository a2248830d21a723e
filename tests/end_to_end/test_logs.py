"""The relay's log: one JSON object a request where the access log is on, and no secret in any of it."""

import json
from typing import Any

import pytest

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.raw_client import request_bytes
from tests.end_to_end.relay_process import CANARY, Relay
from tests.end_to_end.waiting import eventually, never


def logged(relay: Relay, request_id: str) -> list[dict[str, Any]]:
    """The access log's entries for a request. The last line may be half written."""
    lines = [line for line in relay.output().splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
    return [entry for entry in map(json.loads, lines) if entry.get("request_id") == request_id]


def entry(relay: Relay, request_id: str) -> dict[str, Any]:
    (found,) = eventually(lambda: logged(relay, request_id), what=f"a line for {request_id}")
    return found


def ask(relay: Relay, request_id: str, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
    fields = [(b"X-Request-Id", request_id.encode()), (b"Authorization", f"Bearer {CANARY}".encode())]
    relay.request(method, target, fields, body)
    return entry(relay, request_id)


def test_a_request_is_one_line_of_json(relay: Relay) -> None:
    line = ask(relay, "log-plain", "POST", "/up" + answer(status=201, body="hello"), b"abc")
    assert line["method"] == "POST"
    assert line["status"] == 201
    assert line["route"] == "/up"
    assert line["request_bytes"] == 3
    assert line["response_bytes"] == 5
    assert line["error"] is None
    assert line["truncated"] is False
    assert line["duration_ms"] >= 0


def test_an_error_is_logged_with_its_word(relay: Relay) -> None:
    assert ask(relay, "log-none", "GET", "/nowhere")["error"] == "no_route"
    line = ask(relay, "log-refused", "GET", "/refused/x")
    assert (line["status"], line["error"]) == (502, "connect_refused")


def test_a_truncation_is_logged_as_one(relay: Relay) -> None:
    line = ask(relay, "log-cut", "GET", "/up" + answer(body_bytes=100_000, cut_after_bytes=70_000, end="fin"))
    assert line["truncated"] is True
    assert line["error"]


def test_a_retry_is_counted(relay: Relay) -> None:
    ask(relay, "log-first", "GET", "/up/echo")
    assert ask(relay, "log-retry", "GET", "/up/die?on=reused")["attempts"] == 2


def test_a_client_that_leaves_is_one_line_and_no_noise(relay: Relay, seen: Seen) -> None:
    before = len(relay.output().splitlines())
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=100, interval_ms=20), [(b"X-Request-Id", b"log-left")]))
        client.read_head()
    assert entry(relay, "log-left")["truncated"] is True
    eventually(lambda: seen.one().peer_closed_s)
    assert len(relay.output().splitlines()) == before + 1


@pytest.mark.parametrize("target", ['/up/echo?q="quoted"\\', "/up/echo/%0a%0d", "/up/echo/\xff\x80"])
def test_a_strange_target_stays_one_line(relay: Relay, target: str) -> None:
    request_id = f"log-strange-{target.encode('latin-1').hex()[-8:]}"
    with relay.client() as client:
        client.send(request_bytes("GET", target, [(b"X-Request-Id", request_id.encode())]))
        if client.read_response().status == 400:
            return  # refused by Granian, before it is a request
    assert entry(relay, request_id)["status"] in {200, 400, 404}


def test_of_the_query_only_names_are_logged(relay: Relay) -> None:
    """Nobody can list all names of secrets; the harness looks for the canary itself."""
    line = ask(relay, "log-query", "GET", f"/up/echo?model=m1&key={CANARY}&my-own-name={CANARY}&alt=sse")
    assert all(name in line["target"] for name in ("model", "key", "my-own-name", "alt"))


def test_without_the_access_log_requests_leave_no_line(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    with farm.running({"server": {"access_log": False}, "routes": {"/up": upstream.url}}) as relay:
        before = relay.output()
        for target in ("/up/echo", "/nowhere", "/up/die", f"/up/echo?key={CANARY}"):
            relay.get(target)
        never(lambda: relay.output() != before, 0.4, what="a line")


def test_debug_logging_tells_no_secret(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    with farm.running({"server": {"log_level": "debug"}, "routes": {"/up": upstream.url}}) as relay:
        for target in (f"/up/echo?key={CANARY}", f"/nowhere?key={CANARY}", "/up/die", "/up/hold?x=1"):
            with relay.client() as client:
                client.send(request_bytes("GET", target, [(b"Authorization", CANARY.encode())]))
                never(client.is_closed_by_peer, 0.1)
