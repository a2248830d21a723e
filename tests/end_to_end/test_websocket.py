"""WebSocket through the relay (C70-C75), with a client that speaks in frames and one that is aiohttp's.

Granian's server answers pings itself, drops the *reason* of a client's close frame, and shows an abnormal end as 1005.
Where that decides, the docstring says what holds instead.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator

import aiohttp
import pytest

from loadtests.fake_upstream import listener_tls
from tests.end_to_end import websocket_upstream
from tests.end_to_end.asking import answer, raw
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.harness import WEBSOCKET_BYTES_MAX, RelayFarm, Seen
from tests.end_to_end.raw_client import ClosedEarlyError, Header, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually, settled
from tests.end_to_end.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    WebSocketClient,
    close_payload,
    encode_frame,
)
from tests.end_to_end.websocket_upstream import WebSocketUpstream

Closing = tuple[str, int | None, str]


@pytest.fixture(name="closings")
def fixture_closings(websockets: WebSocketUpstream) -> list[Closing]:
    """How connections ended at the upstream since the test began."""
    eventually(lambda: websockets.open == 0, what="the end of earlier tests' connections")
    websockets.closings.clear()
    return websockets.closings


@pytest.fixture(name="client")
def fixture_client(relay: Relay, closings: list[Closing]) -> Iterator[WebSocketClient]:
    assert closings == []
    with relay.client() as wire:
        yield WebSocketClient(wire)


@pytest.fixture(name="echo")
def fixture_echo(client: WebSocketClient) -> WebSocketClient:
    assert client.handshake("/ws/echo").status == 101
    return client


def ending_of(closings: list[Closing]) -> Closing:
    eventually(lambda: closings, what="the end of the upstream's connection")
    (ending,) = closings
    return ending


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [
        (TEXT, b"hello"),
        (TEXT, "Grüße, 世界 🚀".encode()),
        (TEXT, b""),
        (BINARY, b""),
        (BINARY, bytes(range(256))),
        (TEXT, b"x" * 125),
        (TEXT, b"x" * 126),
        (BINARY, b"x" * 65_535),
        (BINARY, b"x" * 65_536),
        (BINARY, bytes(1 << 20)),
        (TEXT, b"y" * (1 << 20)),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else str(value),
)
def test_c70_messages_cross_whole(echo: WebSocketClient, opcode: int, payload: bytes) -> None:
    echo.send(opcode, payload)
    message = echo.receive_message()
    assert (message.opcode, message.payload) == (opcode, payload)


def test_c70_messages_keep_their_order(echo: WebSocketClient) -> None:
    for number in range(300):
        echo.send(TEXT if number % 3 else BINARY, b"%d" % number)
    received = [echo.receive_message() for _ in range(300)]
    assert [message.payload for message in received] == [b"%d" % number for number in range(300)]
    assert [message.opcode for message in received] == [TEXT if number % 3 else BINARY for number in range(300)]


def test_c70_a_fragmented_message_arrives_whole(echo: WebSocketClient) -> None:
    """Also where a character is cut in two, and a ping comes between the fragments."""
    text = "世界".encode()
    echo.send(TEXT, text[:2], flags=0)
    echo.send(PING, b"between")
    echo.send(CONTINUATION, text[2:4], flags=0)
    echo.send(CONTINUATION, b"", flags=0)
    echo.send(CONTINUATION, text[4:], flags=FIN)
    seen_pong = False
    while (frame := echo.receive()).opcode in {PING, PONG}:
        seen_pong |= (frame.opcode, frame.payload) == (PONG, b"between")
    assert (frame.opcode, frame.payload) == (TEXT, text)
    assert seen_pong


def test_c70_a_message_of_many_fragments_arrives_whole(echo: WebSocketClient) -> None:
    echo.send(BINARY, b"0" * 100, flags=0)
    for _ in range(500):
        echo.send(CONTINUATION, b"1" * 100, flags=0)
    echo.send(CONTINUATION, b"2")
    assert echo.receive_message().payload == b"0" * 100 + b"1" * 50_000 + b"2"


def test_c70_an_upstreams_fragments_and_pings_arrive(client: WebSocketClient) -> None:
    frames = [(TEXT, b"ab", 0), (PING, b"p", FIN), (CONTINUATION, b"cd", FIN)]
    hexed = b"".join(encode_frame(opcode, payload, flags=flags, mask=None) for opcode, payload, flags in frames).hex()
    assert client.handshake(f"/ws/frames?hex={hexed}").status == 101
    assert client.receive_message().payload == b"before"
    assert client.receive_message().payload == b"abcd"


@pytest.mark.parametrize("payload", [b"", b"are you there", b"p" * 125])
def test_c70_a_ping_is_answered_with_its_payload(echo: WebSocketClient, payload: bytes) -> None:
    """By the relay itself (Granian answers pings, the application never sees them); the connection lives on."""
    echo.send(PING, payload)
    frame = echo.receive()
    assert (frame.opcode, frame.payload) == (PONG, payload)
    echo.send(PONG, b"unasked")
    echo.send(TEXT, b"alive")
    assert echo.receive_message().payload == b"alive"


def test_c70_frames_that_come_with_the_handshake_are_not_lost(client: WebSocketClient) -> None:
    """A client may send at once; its first frames can lie in the same segment as its request."""
    opening = [
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    client.wire.send(request_bytes("GET", "/ws/echo", opening) + encode_frame(TEXT, b"early"))
    assert client.wire.read_head().status == 101
    assert client.receive_message().payload == b"early"


def test_c70_many_connections_at_once_stay_apart(relay: Relay) -> None:
    async def talk(session: aiohttp.ClientSession, number: int) -> bool:
        async with session.ws_connect(f"{relay.url}/ws/echo") as socket:
            for turn in range(10):
                await socket.send_str(f"{number}-{turn}")
                if await socket.receive_str() != f"{number}-{turn}":
                    return False
        return socket.close_code == 1000

    async def all_at_once() -> list[bool]:
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(talk(session, number) for number in range(50)))

    assert all(asyncio.run(all_at_once()))


@pytest.mark.parametrize(
    ("offered", "known", "chosen"),
    [
        ([b"chat, superchat"], "superchat", [b"superchat"]),
        ([b"chat"], "chat", [b"chat"]),
        ([b"realtime, openai-insecure-api-key.canary-5ecret"], "realtime", [b"realtime"]),
        ([b"a", b"b"], "b", [b"b"]),
        ([b"chat"], "", []),
        ([], "", []),
    ],
)
def test_c71_the_subprotocol_is_the_upstreams_choice(
    client: WebSocketClient, offered: list[bytes], known: str, chosen: list[bytes]
) -> None:
    fields = [(b"Sec-WebSocket-Protocol", value) for value in offered]
    response = client.handshake(f"/ws/echo?protocols={known}", fields)
    assert response.status == 101
    assert response.values("sec-websocket-protocol") == chosen
    client.send(TEXT, b"works")
    assert client.receive_message().payload == b"works"


def test_c71_a_refused_handshake_is_relayed_with_its_body(relay: Relay, client: WebSocketClient) -> None:
    """A repeated field in it once killed a worker: Granian panics on it, so one of the two may be missing."""
    workers = relay.pids()
    response = client.handshake("/ws/refuse")
    assert response.status == 401
    assert json.loads(response.body) == {"why": "no key"}
    assert response.values("www-authenticate") == [b"Bearer"]
    assert response.values("set-cookie")[:1] in ([b"a=1"], [b"b=2"])
    assert relay.get("/healthz").status == 200
    assert relay.pids() == workers, "a worker died of it"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ws/plain", 200),
        ("/ws/absent", 404),
        ("/ws-to-http" + answer(status=403, body="no"), 403),
        ("/ws-to-http" + answer(status=302, header="location:/x", framing="chunked"), 302),
        ("/ws-to-http" + answer(status=503, framing="close", body="later"), 503),
    ],
)
def test_c71_an_ordinary_answer_to_a_handshake_is_relayed_or_a_bad_gateway(
    relay: Relay, client: WebSocketClient, path: str, status: int
) -> None:
    response = client.handshake(path)
    assert response.status in {status, 502}
    if status >= 400:
        assert response.status == status
    assert relay.get("/healthz").status == 200


HANDSHAKE = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize(
    "upstream_says",
    [
        HANDSHAKE + b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        HANDSHAKE + b"\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 X\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 1000 X\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"",
        b"HTTP/1.1 401 X\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nno",
        HANDSHAKE + b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: a\x01b\r\n\r\n",
    ],
)
def test_c71_a_wrong_answer_to_a_handshake_kills_nothing(
    relay: Relay, client: WebSocketClient, upstream_says: bytes
) -> None:
    workers = relay.pids()
    response = client.handshake("/ws-to-http" + raw(upstream_says, end="fin"), [(b"Sec-WebSocket-Protocol", b"a")])
    assert response.status in {401, 502}
    assert relay.get("/healthz").status == 200
    assert relay.pids() == workers, "a worker died of it"


@pytest.mark.parametrize("prefix", ["/nowhere", "/refused", "/black-hole", "/unresolvable"])
def test_c71_a_handshake_that_cannot_be_made_gets_an_http_error(client: WebSocketClient, prefix: str) -> None:
    response = client.handshake(f"{prefix}/echo")
    assert response.status in {404, 502, 504}
    assert response.values("x-request-id")
    assert {"type", "message", "request_id"} <= set(response.json()["error"])


CODES = [(1000, ""), (1000, "done"), (1001, "away"), (1011, "fault"), (3000, "x"), (4000, "ä" * 60), (4999, "last")]


@pytest.mark.parametrize(("code", "reason"), CODES)
def test_c72_the_upstreams_close_code_and_reason_arrive(client: WebSocketClient, code: int, reason: str) -> None:
    assert client.handshake(f"/ws/close?code={code}&reason={reason.encode().hex()}").status == 101
    assert client.receive_close() == (code, reason)


@pytest.mark.parametrize(("code", "reason"), CODES)
def test_c72_the_clients_close_code_arrives(
    echo: WebSocketClient, closings: list[Closing], code: int, reason: str
) -> None:
    """The reason does not: Granian drops it."""
    echo.send(CLOSE, close_payload(code, reason))
    _, received, told = ending_of(closings)
    assert received == code
    assert told in {reason, ""}
    assert echo.receive_close()[0] == code


def test_c72_a_close_frame_without_a_code_stays_one(echo: WebSocketClient, closings: list[Closing]) -> None:
    """Or becomes 1000; never an error."""
    echo.send(CLOSE, b"")
    assert ending_of(closings)[1] in {0, 1000}
    assert echo.receive_close()[0] in {0, 1000, 1005}


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_c72_a_client_that_vanishes_is_no_normal_close(
    echo: WebSocketClient, websockets: WebSocketUpstream, closings: list[Closing], leave: str
) -> None:
    """The upstream sees a broken connection, or a close frame that says so: not 1000."""
    echo.send(TEXT, b"here")
    assert echo.receive_message().payload == b"here"
    getattr(echo.wire, leave)()
    assert ending_of(closings)[1] in {None, 0, 1001, 1006, 1011}
    eventually(lambda: websockets.open == 0)


def test_c72_an_upstream_that_vanishes_is_no_normal_close(client: WebSocketClient) -> None:
    assert client.handshake("/ws/abort").status == 101
    assert client.receive_message().payload == b"before"
    assert client.receive_close()[0] in {None, 1006, 1011, 1012, 1014}


def test_c72_a_client_that_vanishes_while_the_upstream_floods_stops_it(
    client: WebSocketClient, websockets: WebSocketUpstream
) -> None:
    assert client.handshake("/ws/flood?bytes=65536&messages=100000").status == 101
    client.receive()
    client.wire.reset()
    eventually(lambda: websockets.open == 0, 3.0, what="the end of the flood")


def test_c72_after_a_close_nothing_is_left_open(relay: Relay, websockets: WebSocketUpstream) -> None:
    for _ in range(20):
        with relay.client() as wire:
            client = WebSocketClient(wire)
            assert client.handshake("/ws/echo").status == 101
            client.send(CLOSE, close_payload(1000))
            assert client.receive_close()[0] == 1000
    eventually(lambda: websockets.open == 0)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (encode_frame(TEXT, b"\xff\xfe"), 1007),
        (encode_frame(TEXT, b"\xed\xa0\x80"), 1007),
        (encode_frame(TEXT, b"x", flags=FIN | RSV1), 1002),
        (encode_frame(TEXT, b"unmasked", mask=None), 1002),
        (encode_frame(0x3, b"reserved opcode"), 1002),
        (encode_frame(0xB, b"reserved control"), 1002),
        (encode_frame(CONTINUATION, b"of nothing"), 1002),
        (encode_frame(PING, b"p" * 126), 1002),
        (encode_frame(PING, b"p", flags=0), 1002),
        (encode_frame(CLOSE, b"\x03"), 1002),
        (encode_frame(CLOSE, close_payload(1005)), 1002),
        (encode_frame(CLOSE, close_payload(999)), 1002),
        (encode_frame(TEXT, b"a", flags=0) + encode_frame(TEXT, b"b"), 1002),
    ],
)
def test_c73_a_client_that_breaks_the_protocol_is_closed(
    relay: Relay, echo: WebSocketClient, closings: list[Closing], frame: bytes, code: int
) -> None:
    """With the right code, or (where Granian finds the fault) without a close frame; the upstream is told an end."""
    echo.wire.send(frame)
    assert echo.receive_close()[0] in {code, 1002, None}
    assert ending_of(closings)[1] != 1000
    assert relay.get("/healthz").status == 200


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(TEXT, b"\xff\xfe", mask=None),
        encode_frame(TEXT, b"x", flags=FIN | RSV1, mask=None),
        encode_frame(TEXT, b"masked"),
        encode_frame(0x3, b"", mask=None),
        encode_frame(CONTINUATION, b"of nothing", mask=None),
        encode_frame(PING, b"p" * 126, mask=None),
        encode_frame(CLOSE, b"\x03", mask=None),
        encode_frame(CLOSE, close_payload(1005), mask=None),
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_c73_an_upstream_that_breaks_the_protocol_is_an_abnormal_end(
    relay: Relay, client: WebSocketClient, websockets: WebSocketUpstream, frame: bytes
) -> None:
    assert client.handshake(f"/ws/frames?hex={frame.hex()}").status == 101
    assert client.receive_message().payload == b"before"
    code, _ = client.receive_close()
    assert code in {None, 1002, 1006, 1007, 1009, 1011, 1014}
    eventually(lambda: websockets.open == 0, what="the end of the upstream's connection")
    assert relay.get("/healthz").status == 200


def test_c73_a_message_at_the_limit_passes(client: WebSocketClient) -> None:
    assert client.handshake("/ws-small/echo").status == 101
    client.send(BINARY, bytes(WEBSOCKET_BYTES_MAX))
    assert len(client.receive_message().payload) == WEBSOCKET_BYTES_MAX


@pytest.mark.parametrize("fragments", [1, 3])
def test_c73_a_clients_message_over_the_limit_is_1009(
    client: WebSocketClient, closings: list[Closing], fragments: int
) -> None:
    assert client.handshake("/ws-small/echo").status == 101
    if fragments == 1:
        client.send(BINARY, bytes(WEBSOCKET_BYTES_MAX + 1))
    else:
        client.send(BINARY, bytes(WEBSOCKET_BYTES_MAX), flags=0)
        client.send(CONTINUATION, b"x", flags=0)
        client.send(CONTINUATION, b"x")
    assert client.receive_close()[0] == 1009
    assert ending_of(closings)[1] != 1000


def test_c73_an_upstreams_message_over_the_limit_is_1009(
    client: WebSocketClient, websockets: WebSocketUpstream
) -> None:
    assert client.handshake(f"/ws-small/flood?bytes={WEBSOCKET_BYTES_MAX + 1}&messages=1").status == 101
    assert client.receive_close()[0] == 1009
    eventually(lambda: websockets.open == 0)


def test_c74_a_client_that_does_not_read_slows_the_upstream_down(relay: Relay, websockets: WebSocketUpstream) -> None:
    """Of 256 MB only what buffers hold has left the upstream, and the relay's memory is flat."""
    before = relay.memory_bytes()
    with relay.client(receive_buffer_bytes=65_536) as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/ws/flood?bytes=262144&messages=1000").status == 101
        client.receive()
        sent = settled(lambda: websockets.flooded_bytes)
        assert sent < 64 << 20
        assert relay.memory_bytes() - before < 16 << 20
    eventually(lambda: websockets.open == 0)


def test_c74_an_upstream_that_does_not_read_slows_the_client_down(relay: Relay) -> None:
    before = relay.memory_bytes()
    with relay.client() as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/ws/late?after_s=2").status == 101
        wire.socket.settimeout(0.7)
        frame, sent = encode_frame(BINARY, bytes(65_536)), 0
        with contextlib.suppress(TimeoutError):
            while sent < 256 << 20:
                wire.send(frame)
                sent += len(frame)
        assert sent < 64 << 20
        assert relay.memory_bytes() - before < 16 << 20


def handshake_headers(client: WebSocketClient, fields: list[Header], target: str = "/ws/headers") -> list[list[str]]:
    assert client.handshake(target, fields).status == 101
    return [[name.lower(), value] for name, value in json.loads(client.receive_message().payload)]


def test_c75_the_handshakes_fields_are_relayed(client: WebSocketClient, websockets: WebSocketUpstream) -> None:
    fields = [
        (b"Authorization", b"Bearer canary-5ecret"),
        (b"Cookie", b"a=1; b=2"),
        (b"Origin", b"https://page.test"),
        (b"X-Custom", b"1"),
        (b"X-Custom", b"2"),
        (b"OpenAI-Beta", b"realtime=v1"),
        (b"User-Agent", b"mine/1"),
    ]
    received = handshake_headers(client, fields)
    for name, value in fields:
        assert [name.decode().lower(), value.decode()] in received
    assert [value for name, value in received if name == "user-agent"] == ["mine/1"]
    assert [value for name, value in received if name == "host"] == [f"127.0.0.1:{websockets.port}"]


def test_c75_hop_by_hop_fields_are_made_anew(client: WebSocketClient) -> None:
    fields = [(b"Keep-Alive", b"1"), (b"Proxy-Authorization", b"x"), (b"TE", b"gzip")]
    received = handshake_headers(client, fields)
    names = [name for name, _ in received]
    assert not {"keep-alive", "proxy-authorization", "te"} & set(names)
    for name in ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version"):
        assert names.count(name) == 1
    assert "user-agent" not in names
    assert "origin" not in names


def test_c75_extensions_are_negotiated_hop_by_hop(client: WebSocketClient) -> None:
    """Granian has no permessage-deflate: an offer must not come back as a promise."""
    response = client.handshake("/ws/echo", [(b"Sec-WebSocket-Extensions", b"permessage-deflate")])
    assert response.status == 101
    assert response.values("sec-websocket-extensions") == []
    client.send(TEXT, b"plain")
    assert client.receive_message().payload == b"plain"


def test_c75_query_and_path_reach_the_upstream(relay: Relay, seen: Seen) -> None:
    with relay.client() as wire:
        WebSocketClient(wire).handshake("/ws-to-http/a%2Fb?model=gpt&key=canary-5ecret")
    assert seen.one().target == b"/a%2Fb?model=gpt&key=canary-5ecret"
    assert seen.one().values("upgrade") == [b"websocket"]


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Key", b"x")],
        [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"8")],
        [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")],
        [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", b"A" * 24)],
    ],
)
def test_c75_half_a_handshake_is_no_handshake(relay: Relay, fields: list[Header]) -> None:
    """It is refused or answered as an ordinary request; the relay lives on."""
    with relay.client() as client:
        client.send(request_bytes("GET", "/ws/echo", fields))
        with contextlib.suppress(ClosedEarlyError):
            assert client.read_response().status != 101
    assert relay.get("/healthz").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_c75_only_get_opens_a_websocket(relay: Relay, seen: Seen, method: str) -> None:
    fields = [
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    with relay.client() as client:
        client.send(request_bytes(method, "/up/echo", fields, b"body"))
        with contextlib.suppress(ClosedEarlyError):
            assert client.read_response().status != 101
    assert all(recorded.method == method for recorded in seen.all())


def test_websockets_cross_tls_on_both_sides(farm: RelayFarm, certificates: Certificates) -> None:
    """wss to the relay, and wss from the relay to the upstream, whose certificate is verified as for https."""
    good = certificates.good
    pair = {"certificate": str(good.certificate), "key": str(good.key)}
    with websocket_upstream.running_in_thread(listener_tls(pair["certificate"], pair["key"], None)) as upstream:
        routes = {
            "/ws": {"target": upstream.url, "tls": {"ca": str(certificates.ca)}},
            "/stranger": {"target": upstream.url, "tls": {"ca": str(certificates.stranger_ca)}},
        }
        with farm.running({"tls": pair, "routes": routes}, certificates.client_tls()) as relay:
            with relay.client() as wire:
                client = WebSocketClient(wire)
                assert client.handshake("/ws/echo").status == 101
                for payload in (b"hello", bytes(1 << 20)):
                    client.send(BINARY, payload)
                    assert client.receive_message().payload == payload
                client.send(CLOSE, close_payload(4001))
                assert client.receive_close()[0] == 4001
            with relay.client() as wire:
                assert WebSocketClient(wire).handshake("/stranger/echo").status == 502
