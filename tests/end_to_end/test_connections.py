"""Connections to the upstream and from the client: reused where they are sound, closed in time where not (C60-C69)."""

import contextlib
import re
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from loadtests import fake_upstream
from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, raw, response_bytes, sse
from tests.end_to_end.harness import Places, RelayFarm, Seen, program
from tests.end_to_end.raw_client import DEADLINE_S, BodyEnd, ClosedEarlyError, RawClient, Response, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually, never


def make_idle_connection(relay: Relay, upstream: UpstreamInThread) -> None:
    """Leave the relay with a pooled connection, and the upstream knowing that it is idle."""
    assert relay.get("/up/echo").status == 200
    eventually(lambda: upstream.idle_connections() > 0, what="an idle connection")


def test_connections_are_reused(relay: Relay, seen: Seen) -> None:
    for _ in range(5):
        assert relay.get("/up/echo").status == 200
        assert relay.request("POST", "/up/echo", [], b"x").status == 200
    assert len({recorded.connection for recorded in seen.all()}) == 1


def test_connections_carry_one_request_at_a_time(relay: Relay, seen: Seen) -> None:
    """Sixteen at once are sixteen connections, and each client gets its own answer."""

    def ask(number: int) -> str:
        return relay.get("/up" + answer(body=f"mine-{number}", head_delay_ms=150)).body.decode()

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(16))) == [f"mine-{number}" for number in range(16)]
    assert len({recorded.connection for recorded in seen.all()}) == 16


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_c60_an_idle_connection_closed_by_the_upstream_is_never_noticed(
    relay: Relay, upstream: UpstreamInThread, method: str
) -> None:
    """The close races with the next request: it must succeed whether the relay has seen the close or not."""
    for _ in range(10):
        make_idle_connection(relay, upstream)
        seen = Seen(upstream)
        upstream.close_idle_from_outside()
        assert relay.request(method, "/up/echo", [], b"hello").status == 200
        assert len(seen.all()) == 1


def test_c60_after_many_idle_connections_have_died_the_next_request_succeeds(
    relay: Relay, upstream: UpstreamInThread
) -> None:
    """A retry that takes another dead connection from the pool is no retry."""
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda _: relay.get("/up" + answer(head_delay_ms=100)), range(12)))
    eventually(lambda: upstream.idle_connections() >= 12)
    upstream.close_idle_from_outside()
    assert relay.request("POST", "/up/echo", [], b"hello").status == 200


def test_c60_an_upstream_with_a_short_keep_alive_is_never_noticed(relay: Relay) -> None:
    for pause_ms in (0, 10, 19, 20, 21, 30, 50):
        assert relay.get("/up" + answer(body="a", idle_ms=20)).body == b"a"
        time.sleep(pause_ms / 1000)
        assert relay.get("/up" + answer(body="b", idle_ms=20)).body == b"b"


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_c61_a_post_on_a_connection_that_dies_is_sent_once(
    relay: Relay, upstream: UpstreamInThread, method: str, how: str
) -> None:
    make_idle_connection(relay, upstream)
    seen = Seen(upstream)
    response = relay.request(method, f"/up/die?on=any&how={how}", [], b"pay 100")
    assert response.status == 502
    assert len(seen.all()) == 1
    assert seen.one().number_on_connection > 1, "the connection was not a reused one"


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    ("method", "body"),
    [("GET", None), ("HEAD", None), ("OPTIONS", None), ("DELETE", None), ("PUT", b"hello"), ("DELETE", b"hello")],
)
def test_c62_an_idempotent_request_is_tried_once_more(
    relay: Relay, upstream: UpstreamInThread, method: str, body: bytes | None, how: str
) -> None:
    make_idle_connection(relay, upstream)
    seen = Seen(upstream)
    assert relay.request(method, f"/up/die?on=reused&how={how}", [], body).status == 200
    first, second = seen.all()
    assert first.number_on_connection > 1
    assert second.number_on_connection == 1
    assert bytes(second.body) == (body or b"")


@pytest.mark.parametrize("body_bytes", [20_000, 2_000_000])
def test_c62_a_body_that_is_gone_is_not_sent_by_halves(
    relay: Relay, upstream: UpstreamInThread, body_bytes: int
) -> None:
    """A PUT too large to be kept either succeeds whole on the second try, or fails; it is never sent in part."""
    make_idle_connection(relay, upstream)
    seen = Seen(upstream)
    body = pattern_slice(0, body_bytes)
    response = relay.request("PUT", "/up/die?on=reused", [], body)
    assert response.status in {200, 502}
    for recorded in seen.all():
        if recorded.complete:
            assert (recorded.body_bytes, bytes(recorded.body)) == (body_bytes, body[: 1 << 20])
    if response.status == 200:
        assert response.json()["body_bytes"] == body_bytes


def test_c62_nothing_is_tried_again_on_a_fresh_connection_that_dies(relay: Relay, upstream: UpstreamInThread) -> None:
    upstream.close_idle_from_outside()
    eventually(lambda: upstream.open_connections == 0)
    seen = Seen(upstream)
    assert relay.get("/up/die?on=any").status == 502
    assert len(seen.all()) <= 2
    make_idle_connection(relay, upstream)
    seen = Seen(upstream)
    assert relay.get("/up/die?on=any").status == 502
    assert len(seen.all()) == 2


def test_c62_nothing_is_tried_again_once_a_byte_has_come(relay: Relay, upstream: UpstreamInThread) -> None:
    make_idle_connection(relay, upstream)
    seen = Seen(upstream)
    assert relay.get("/up" + raw(b"HTTP/1.1 200 OK\r\nX-", end="fin")).status == 502
    assert len(seen.all()) == 1


def begin(relay: Relay, path: str, method: str = "GET", body: bytes | None = None) -> RawClient:
    client = relay.client()
    client.send(request_bytes(method, f"/up{path}", [], body))
    return client


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset])
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"hello"), ("POST", bytes(200_000))])
def test_c63_a_client_that_leaves_before_the_head_cancels_the_request(
    relay: Relay, seen: Seen, leave: Callable[[RawClient], None], method: str, body: bytes | None
) -> None:
    client = begin(relay, "/hold", method, body)
    eventually(lambda: seen.all() and seen.one().complete)
    leave(client)
    eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset])
@pytest.mark.parametrize(
    "path",
    [
        sse(events=1000, interval_ms=50),
        sse(events=10, cut_after_events=2, end="hold"),
        answer(body_bytes=500_000_000),
        answer(framing="chunked", body_bytes=500_000_000, piece_bytes=1000),
        answer(framing="close", body="abc", piece_bytes=1, interval_ms=5000),
    ],
    ids=["ticking events", "silent events", "firehose", "chunked firehose", "slow drip"],
)
def test_c63_a_client_that_leaves_in_the_body_cancels_the_request(
    relay: Relay, seen: Seen, leave: Callable[[RawClient], None], path: str
) -> None:
    client = begin(relay, path)
    assert client.read_head().status == 200
    client.read_some()
    leave(client)
    eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")


def test_c63_many_clients_that_leave_leave_nothing_behind(relay: Relay, upstream: UpstreamInThread) -> None:
    """Sockets and memory are as before, and the relay serves on."""
    upstream.close_idle_from_outside()
    eventually(lambda: upstream.open_connections == 0)
    for round_number in range(4):
        seen = Seen(upstream)
        clients = [begin(relay, path) for path in ("/hold", sse(events=1000, interval_ms=20)) for _ in range(25)]
        eventually(lambda seen=seen: len(seen.all()) == 50)  # type: ignore[misc]
        for client in clients:
            client.reset() if round_number % 2 else client.close()
        eventually(lambda: upstream.open_connections == 0, 2.0, what="the close of all upstream connections")
    assert relay.get("/up/echo").status == 200


def test_c63_a_client_that_leaves_while_connecting_is_forgotten(farm: RelayFarm, places: Places) -> None:
    """Once it has gone, nothing is left to wait for: the relay ends at once, and in silence."""
    route = {"target": f"http://{places.black_hole}", "connect_timeout_s": 60}
    server = {"drain_timeout_s": 30}
    with farm.running({"server": server, "routes": {"/hole": route}}) as relay:
        with relay.client() as waiting:
            waiting.send(request_bytes("GET", "/hole/x"))
            never(waiting.is_closed_by_peer, 0.3)
        started_s = time.monotonic()
        farm.stop(relay)
        assert time.monotonic() - started_s < 5


def test_c63_a_client_that_leaves_the_queue_is_forgotten(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """Its request is never sent, and its place in the queue is free again."""
    route = {"target": upstream.url, "max_connections": 4, "pool_wait_s": 30}
    with farm.running({"routes": {"/few": route}}) as relay:
        seen = Seen(upstream)
        holders = [relay.client() for _ in range(4)]
        for holder in holders:
            holder.send(request_bytes("GET", "/few/hold"))
        eventually(lambda: len(seen.all()) == 4)
        for name in ("left", "left", "stayed"):
            queued = [relay.client() for _ in range(4)]
            for client in queued:  # the queue has four places; who finds one that is not free yet tries again
                eventually(lambda client=client, name=name: waits(client, f"/few/echo/{name}"))  # type: ignore[misc]
            if name == "left":
                for client in queued:
                    client.close()
        for holder in holders:
            holder.close()
        for client in queued:
            assert client.read_response().status == 200
            client.close()
        assert seen.targets().count(b"/echo/stayed") == 4
        assert b"/echo/left" not in seen.targets()


def waits(client: RawClient, target: str) -> bool:
    """Ask, and tell whether there is no answer for now. The queue's refusal comes at once; one may ask again then."""
    client.send(request_bytes("GET", target))
    client.socket.settimeout(0.5)
    try:
        assert client.read_response().status == 503
    except TimeoutError:
        return True
    else:
        return False
    finally:
        client.socket.settimeout(DEADLINE_S)


CAUSES = {
    "/refused": (502, {"connect_refused", "connect_failed"}),
    "/unresolvable": (502, {"dns_failed"}),
    "/black-hole": (504, {"connect_timeout"}),
    "/tls-stranger": (502, {"tls_failed", "certificate_invalid"}),
    "/tls-system": (502, {"tls_failed", "certificate_invalid"}),
    "/tls-misnamed": (502, {"tls_failed", "certificate_invalid"}),
    "/tls-expired": (502, {"tls_failed", "certificate_invalid"}),
    "/tls-to-plain": (502, {"tls_failed"}),
    "/mutual-anonymous": (502, {"tls_failed", "closed"}),
    "/plain-to-tls": (502, {"bad_response", "closed"}),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("prefix", CAUSES)
def test_c64_each_failure_to_connect_has_its_status_and_its_word(relay: Relay, prefix: str, method: str) -> None:
    started_s = time.monotonic()
    response = relay.request(method, f"{prefix}/echo", [], b"hello" if method == "POST" else None)
    status, words = CAUSES[prefix]
    assert (response.status, response.error_type() in words) == (status, True), response.body
    assert time.monotonic() - started_s < 3
    assert not re.search(rb"127\.0\.0\.1|:\d{4,5}|\.pem|errno|invalid\.|ssl\.c", response.body.lower())


def test_c64_the_words_tell_the_causes_apart(relay: Relay) -> None:
    prefixes = ("/refused", "/unresolvable", "/black-hole", "/tls-to-plain")
    assert len({relay.get(f"{prefix}/echo").error_type() for prefix in prefixes}) == 4


def test_c64_an_upload_to_a_dead_upstream_is_told_at_once(relay: Relay) -> None:
    """Also while the body is still being sent."""
    with relay.client() as client:
        client.send(request_bytes("POST", "/refused/x", [(b"Content-Length", b"10000000")]) + bytes(1000))
        assert client.read_response().status == 502


@pytest.fixture(name="narrow", scope="module")
def fixture_narrow(farm: RelayFarm, upstream: UpstreamInThread) -> Iterator[Relay]:
    routes = {
        "/narrow": {"target": upstream.url, "max_connections": 2, "pool_wait_s": 0.5},
        "/patient": {"target": f"http://localhost:{upstream.port}", "max_connections": 5, "pool_wait_s": 20},
    }
    with farm.running({"routes": routes}) as relay:
        yield relay


def test_c65_a_full_pool_is_503_after_the_wait(narrow: Relay, seen: Seen) -> None:
    with narrow.client() as first, narrow.client() as second:
        for client in (first, second):
            client.send(request_bytes("GET", "/narrow/hold"))
        eventually(lambda: len(seen.all()) == 2)
        started_s = time.monotonic()
        response = narrow.get("/narrow/echo")
        waited_s = time.monotonic() - started_s
    assert (response.status, response.error_type()) == (503, "pool_full")
    assert 0.4 < waited_s < 2
    assert int(response.value("retry-after")) >= 1
    assert len(seen.all()) == 2
    eventually(lambda: all(recorded.peer_closed_s for recorded in seen.all()), what="room for the next test")


def test_c65_a_connection_that_comes_free_in_time_is_used(narrow: Relay, seen: Seen) -> None:
    with ThreadPoolExecutor(4) as threads:
        path = "/narrow" + answer(body="served", head_delay_ms=150)
        responses = list(threads.map(lambda _: narrow.get(path), range(4)))
    assert [response.body for response in responses] == [b"served"] * 4
    assert len({recorded.connection for recorded in seen.all()}) <= 2


def test_c65_the_cap_holds_and_nobody_starves(narrow: Relay, seen: Seen) -> None:
    """Twice as many at once as there are connections (the queue holds as many as the pool): all are served, in turn."""
    with ThreadPoolExecutor(10) as threads:
        responses = list(threads.map(lambda _: narrow.get("/patient" + answer(body="a", head_delay_ms=10)), range(60)))
    assert {response.status for response in responses} == {200}
    assert len({recorded.connection for recorded in seen.all()}) == 5


def test_c65_a_connection_that_breaks_makes_room(narrow: Relay) -> None:
    """A place in the pool is given back however its request ended."""
    for _ in range(6):
        assert narrow.get("/narrow" + raw(b"garbage\r\n\r\n", end="fin")).status == 502
        assert narrow.get("/narrow/die").status == 502
        try:
            response = narrow.get("/narrow" + answer(body_bytes=100_000, cut_after_bytes=5, end="rst"))
        except ClosedEarlyError:
            continue
        assert response.failed
    assert narrow.get("/narrow/echo").status == 200


def test_c65_idle_connections_are_closed_after_their_time(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    with farm.running({"routes": {"/up": {"target": upstream.url, "idle_connection_s": 0.5}}}) as relay:
        seen = Seen(upstream)
        assert relay.get("/up/echo").status == 200
        eventually(lambda: seen.one().peer_closed_s, 4.0, what="the close of an idle connection")
        assert relay.get("/up/echo").status == 200


def test_c66_pipelined_requests_are_answered_in_order(relay: Relay) -> None:
    """The first takes longest; the answers come in the order of the requests all the same."""
    delays_ms = (200, 0, 50, 0)
    with relay.client() as client:
        for number, delay_ms in enumerate(delays_ms):
            client.send(request_bytes("GET", "/up" + answer(body=f"n{number}", head_delay_ms=delay_ms)))
        assert [client.read_response().body for _ in delays_ms] == [b"n0", b"n1", b"n2", b"n3"]


def test_c66_pipelined_bodies_stay_apart(relay: Relay, seen: Seen) -> None:
    bodies = [b"first", b"", b"third" * 1000, b"4"]
    with relay.client() as client:
        client.send(b"".join(request_bytes("POST", "/up/echo", [], body) for body in bodies))
        for body in bodies:
            assert client.read_response().json()["body_bytes"] == len(body)
    assert [bytes(recorded.body) for recorded in seen.all()] == bodies


def test_c66_a_pipelined_client_that_leaves_cancels_what_runs(relay: Relay, seen: Seen) -> None:
    """With a second request waiting, Granian reads no further and sees the leaving only when a write fails."""
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=1000, interval_ms=20)) + request_bytes("GET", "/up/echo"))
        eventually(seen.all)
    eventually(lambda: seen.all()[0].peer_closed_s, 3.0, what="the close of the upstream's connection")


@pytest.fixture(name="impatient", scope="module")
def fixture_impatient(farm: RelayFarm, upstream: UpstreamInThread) -> Iterator[Relay]:
    server = {"header_timeout_s": 1.0, "body_timeout_s": 1.0}
    with farm.running({"server": server, "routes": {"/up": upstream.url}}) as relay:
        yield relay


def closed_within(client: RawClient, deadline_s: float) -> float:
    """Seconds until the relay closes."""
    started_s = time.monotonic()
    client.socket.settimeout(deadline_s)
    client.read_until_closed()
    return time.monotonic() - started_s


@pytest.mark.parametrize("sent", [b"G", b"GET /up/echo HT", b"GET /up/echo HTTP/1.1\r\nHost: a\r\nX-"])
def test_c67_slow_heads_are_closed_at_the_limit(impatient: Relay, seen: Seen, sent: bytes) -> None:
    with impatient.client() as client:
        client.send(sent)
        assert 0.5 < closed_within(client, 8) < 5
    assert not seen.all()


@pytest.mark.parametrize("http", ["auto", "1"])
def test_c67_connections_that_never_say_a_word_are_closed_at_the_limit(farm: RelayFarm, http: str) -> None:
    with farm.running({"server": {"header_timeout_s": 1.0, "http": http}}) as relay, relay.client() as client:
        assert closed_within(client, 8) < 5


def test_c67_dripping_heads_are_closed_at_the_limit(impatient: Relay, seen: Seen) -> None:
    """A byte now and then does not start the time anew."""
    with impatient.client() as client:
        started_s = time.monotonic()
        client.send(b"GET /up/echo HTTP/1.1\r\nHost: a\r\n")
        try:
            while time.monotonic() - started_s < 8:
                client.send(b"X-A: b\r\n")
                if client.is_closed_by_peer():
                    break
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - started_s < 5
    assert not seen.all()


def test_c67_idle_connections_are_closed_at_the_limit(impatient: Relay) -> None:
    with impatient.client() as client:
        assert client.request("GET", "/up/echo").status == 200
        assert 0.5 < closed_within(client, 8) < 5


@pytest.mark.parametrize(
    "sent",
    [
        request_bytes("POST", "/up/echo", [(b"Content-Length", b"100")]) + b"hello",
        request_bytes("POST", "/up/echo", [(b"Transfer-Encoding", b"chunked")]) + b"5\r\nhello\r\n",
        request_bytes("POST", "/up/echo", [(b"Transfer-Encoding", b"chunked")]) + b"5\r\nhel",
        request_bytes("POST", "/up/echo", [(b"Content-Length", b"100")]),
    ],
)
def test_c67_slow_bodies_are_ended_at_the_limit(impatient: Relay, seen: Seen, sent: bytes) -> None:
    with impatient.client() as client:
        client.send(sent)
        started_s = time.monotonic()
        with contextlib.suppress(ClosedEarlyError):
            assert client.read_response().status in {408, 400}
        assert 0.5 < time.monotonic() - started_s < 5
    never(lambda: any(recorded.complete for recorded in seen.all()), 0.2)
    eventually(lambda: all(recorded.peer_closed_s for recorded in seen.all()))


def test_c67_a_slow_answer_is_not_a_slow_body(impatient: Relay) -> None:
    """The client has sent all it had; the limits of requests are no limits of answers."""
    assert impatient.request("POST", "/up" + answer(body="late", head_delay_ms=2500), [], b"x").body == b"late"
    slow = answer(body="abcd", framing="chunked", piece_bytes=1, interval_ms=900)
    assert impatient.get("/up" + slow).body == b"abcd"


def test_c67_other_clients_do_not_suffer(impatient: Relay) -> None:
    slow = [impatient.client() for _ in range(100)]
    try:
        for client in slow:
            client.send(b"POST /up/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
        started_s = time.monotonic()
        for _ in range(10):
            assert impatient.get("/up/echo").status == 200
        assert time.monotonic() - started_s < 1
    finally:
        for client in slow:
            client.close()


def test_c67_connections_beyond_the_cap_are_told_so(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """At `max_connections` requests in flight, the next one gets 503 and not silence."""
    with farm.running({"server": {"max_connections": 4}, "routes": {"/up": upstream.url}}) as relay:
        seen = Seen(upstream)
        held = [relay.client() for _ in range(4)]
        for client in held:
            client.send(request_bytes("GET", "/up/hold"))
        eventually(lambda: len(seen.all()) == 4)
        response = relay.get("/up/echo")
        assert response.status == 503
        for client in held:
            client.close()
        eventually(lambda: relay.get("/up/echo").status == 200)


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

/* "several.test" has two addresses: 127.0.0.2 first, then 127.0.0.1. Everything else is as it was. */
typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (node == NULL || strcmp(node, "several.test") != 0)
        return real(node, service, hints, found);
    struct addrinfo *last, *second;
    int failed = real("127.0.0.2", service, hints, found);
    if (failed)
        return failed;
    failed = real("127.0.0.1", service, hints, &second);
    if (failed)
        return failed;
    for (last = *found; last->ai_next != NULL; last = last->ai_next)
        ;
    last->ai_next = second;
    return 0;
}
"""


@pytest.fixture(name="several_addresses", scope="module")
def fixture_several_addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `several.test` resolves to 127.0.0.2 and 127.0.0.1."""
    directory = tmp_path_factory.mktemp("shim")
    source, library = directory / "resolve.c", directory / "resolve.so"
    source.write_text(SHIM)
    subprocess.run([program("gcc"), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_c69_a_refusing_address_is_passed_over(
    farm: RelayFarm, upstream: UpstreamInThread, several_addresses: dict[str, str], method: str
) -> None:
    """Nothing listens on the first address of the name; the second answers."""
    routes = {"/up": f"http://several.test:{upstream.port}"}
    with farm.running({"routes": routes}, environment=several_addresses) as relay:
        assert relay.request(method, "/up/echo", [], b"x" if method == "POST" else None).status == 200


def test_c69_a_silent_address_is_passed_over_in_time(farm: RelayFarm, several_addresses: dict[str, str]) -> None:
    """The first address swallows SYNs; RFC 8305 gives it a quarter of a second before the next is tried beside it."""
    with fake_upstream.running_in_thread() as upstream, socket.socket() as hole, socket.socket() as knock:
        hole.bind(("127.0.0.2", upstream.port))
        hole.listen(0)
        knocks = [socket.socket() for _ in range(3)]
        for one in (knock, *knocks):
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", upstream.port))
        routes = {"/up": {"target": f"http://several.test:{upstream.port}", "connect_timeout_s": 8}}
        with farm.running({"routes": routes}, environment=several_addresses) as relay:
            started_s = time.monotonic()
            assert relay.get("/up/echo").status == 200
            assert time.monotonic() - started_s < 3
        for one in knocks:
            one.close()


def test_c69_all_addresses_dead_is_a_failure_to_connect(
    farm: RelayFarm, places: Places, several_addresses: dict[str, str]
) -> None:
    port = places.refused.rpartition(":")[2]
    with farm.running({"routes": {"/up": f"http://several.test:{port}"}}, environment=several_addresses) as relay:
        response = relay.get("/up/echo")
        assert (response.status, response.error_type()) == (502, "connect_refused")


def test_an_ipv6_upstream_is_reached(farm: RelayFarm) -> None:
    with fake_upstream.running_in_thread(host="::1") as upstream:
        with farm.running({"routes": {"/up": f"http://[::1]:{upstream.port}"}}) as relay:
            assert relay.get("/up/echo").status == 200
        assert upstream.requests[0].values("host") == [f"[::1]:{upstream.port}".encode()]


def test_a_slow_exchange_and_many_quick_ones_do_not_mix(relay: Relay) -> None:
    """A hundred quick requests on other connections pass while one answer drips."""
    responses: list[Response] = []

    def slow() -> None:
        responses.append(relay.get("/up" + answer(body="abcdefghij", piece_bytes=1, interval_ms=50)))

    thread = threading.Thread(target=slow)
    thread.start()
    for number in range(100):
        assert relay.get("/up" + answer(body=f"q{number}")).body == f"q{number}".encode()
    thread.join()
    assert (responses[0].body, responses[0].end) == (b"abcdefghij", BodyEnd.COMPLETE)


def test_responses_follow_their_requests_under_mixed_failures(relay: Relay) -> None:
    """Good and bad upstream answers in any order on shared connections: nobody gets another's answer."""

    def ask(number: int) -> bool:
        kind = number % 4
        if kind == 0:
            return relay.get("/up" + answer(body=f"n{number}")).body == f"n{number}".encode()
        if kind == 1:
            return relay.get("/up" + raw(b"garbage\r\n\r\n", end="fin")).status == 502
        if kind == 2:
            response = relay.get(
                "/up" + raw(response_bytes(b"HTTP/1.1 200 OK", b"Content-Length: 1", body=b"x") + b"!")
            )
            return response.body in {b"x", b""} or response.failed
        return relay.get("/up" + answer(body=f"c{number}", framing="chunked")).body == f"c{number}".encode()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(200)))


def test_running_out_of_descriptors_is_survived(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """Each request needs two. Those that get none fail or wait; when the others have gone, all is as before."""
    with farm.running({"routes": {"/up": upstream.url}}) as relay:
        workers = relay.pids()
        for pid in workers:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
        clients = [relay.client() for _ in range(60)]
        for client in clients:
            client.send(request_bytes("GET", "/up/hold"))
        assert {status_of(client) for client in clients} <= {None, 502, 503}
        for client in clients:
            client.close()
        eventually(lambda: relay.get("/up/echo").status == 200)
        assert relay.pids() == workers


def status_of(client: RawClient) -> int | None:
    """The status that has come within a moment, if any has."""
    client.socket.settimeout(0.02)
    try:
        return client.read_response().status
    except (TimeoutError, ClosedEarlyError):
        return None
