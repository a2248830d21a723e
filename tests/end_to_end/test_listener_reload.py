"""A reload of what the listener is made of, its certificate above all: new workers beside the old, and no request lost.

Idle connections live for one second here, so retired workers end three seconds after their last request of HTTP/1.1.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.base import CertificateBuilder

from loadtests.fake_upstream import UpstreamInThread
from proxy.config import ListenerTls
from proxy.listener_tls import LoadedTls
from proxy.shared_state.keys import RELOAD_TLS, RELOAD_TLS_CHANNEL, WORKERS
from proxy.shared_state.worker_state import decode_state
from tests.end_to_end.asking import sse
from tests.end_to_end.certificates import Certificates, Pair
from tests.end_to_end.harness import RelayFarm, program
from tests.end_to_end.load import Load, closes, worker_of
from tests.end_to_end.process_tree import is_alive
from tests.end_to_end.raw_client import BodyEnd, RawClient, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import TEXT, WebSocketClient
from tests.end_to_end.websocket_upstream import WebSocketUpstream
from tests.redis_servers import EMBEDDED, connected, redis_at

ENOUGH = 100
"""Answers that a load must have had before and after the event under test."""
RETIREMENT_DEADLINE_S = 30.0
LOADED_S = 6.0
"""How long a relay under load keeps an idle connection: clients that a busy machine stops for over a second would else
find theirs closed, as they should."""


@pytest.fixture(name="pair")
def fixture_pair(tmp_path: Path, certificates: Certificates) -> Pair:
    """The files that the relay is told of; a test may write others over them."""
    return put(certificates.good, Pair(tmp_path / "live.pem", tmp_path / "live.key"))


def put(source: Pair, place: Pair) -> Pair:
    shutil.copyfile(source.certificate, place.certificate)
    shutil.copyfile(source.key, place.key)
    return place


Start = Callable[..., Relay]


@pytest.fixture(name="start")
def fixture_start(farm: RelayFarm, certificates: Certificates, upstream: UpstreamInThread, pair: Pair) -> Start:
    def start(
        workers: int = 2,
        protocol: str = "http/1.1",
        header_timeout_s: float = 1,
        redis: str | None = None,
        **routes: str,
    ) -> Relay:
        configuration: dict[str, Any] = {
            "server": {"workers": workers, "header_timeout_s": header_timeout_s, "drain_timeout_s": 10},
            "tls": {"certificate": str(pair.certificate), "key": str(pair.key)},
            "routes": {"/up": upstream.url, **{f"/{name}": target for name, target in routes.items()}},
        }
        if redis is not None:
            configuration["redis"] = {"url": redis}
        return farm.start(configuration, certificates.client_tls(protocol))

    return start


def workers_of(relay: Relay) -> set[int]:
    assert relay.process is not None
    return relay.pids() - {relay.process.pid}


def serial_shown(relay: Relay) -> int:
    """The serial number of the certificate that a new connection is shown."""
    return load_pem_x509_certificate(ssl.get_server_certificate((relay.host, relay.port)).encode()).serial_number


def serial_of(pair: Pair) -> int:
    return load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def ended(pids: set[int]) -> Callable[[], bool]:
    return lambda: not any(map(is_alive, pids))


def test_a_renewed_certificate_is_shown_and_no_request_is_lost(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair
) -> None:
    """Under the same name, with clients that keep their connections and clients that come and go; twice."""
    relay = start(header_timeout_s=LOADED_S)
    load = Load(relay, "/up/echo", clients=6, passers_by=3)
    with load.running():
        for number in range(2):
            old = workers_of(relay)
            eventually(lambda before=load.answered: load.answered > before + ENOUGH)  # type: ignore[misc]
            put(certificates.issue(f"renewed-{number}", "127.0.0.1"), pair)
            relay.signal(signal.SIGHUP)
            eventually(lambda: serial_shown(relay) == serial_of(pair), 20)
            eventually(ended(old), RETIREMENT_DEADLINE_S, what="the end of the old workers")
            eventually(lambda before=load.answered: load.answered > before + ENOUGH)  # type: ignore[misc]
    assert load.failures == []
    assert len(workers_of(relay)) == 2
    farm.stop(relay)


def test_clients_on_http_2_are_told_to_go_and_lose_nothing(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair, tmp_path: Path
) -> None:
    relay = start(protocol="http/1.1")
    old = workers_of(relay)
    said = tmp_path / "said.txt"
    command = [program("curl"), "-sS", "--http2", "--cacert", str(certificates.ca), "-o", "/dev/null"]
    command += ["-w", "%{http_version} %{http_code}\n", f"{relay.url}/up/echo?[1-100000]"]
    with said.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as client:
        eventually(lambda: said.stat().st_size > ENOUGH)
        put(certificates.issue("renewed-h2", "127.0.0.1"), pair)
        relay.signal(signal.SIGHUP)
        eventually(ended(old), RETIREMENT_DEADLINE_S, what="the end of the old workers")
        so_far = said.stat().st_size
        eventually(lambda: said.stat().st_size > so_far + ENOUGH)
        client.terminate()
    lines = said.read_text().split("\n")[:-1]  # of the last, a part may be missing
    assert set(lines) == {"2 200"}
    farm.stop(relay)


def test_what_runs_goes_on_in_the_old_workers_to_its_end(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair, websockets: WebSocketUpstream
) -> None:
    """However long that takes: a stream, a WebSocket, and a connection that a client keeps after its stream."""
    relay = start(workers=1, ws=websockets.url)
    old = workers_of(relay)
    with relay.client() as streaming, relay.client() as wire:
        streaming.send(request_bytes("GET", "/up" + sse(events=80, interval_ms=100)))
        response = streaming.read_head()
        tunnel = WebSocketClient(wire)
        assert tunnel.handshake("/ws/echo").status == 101
        put(certificates.issue("renewed-streams", "127.0.0.1"), pair)
        relay.signal(signal.SIGHUP)
        eventually(lambda: serial_shown(relay) == serial_of(pair), 20)
        assert worker_of(relay.get("/up/echo")) != worker_of(response)
        streaming.read_body(response)
        assert (response.body.count(b"\n\n"), response.end) == (80, BodyEnd.COMPLETE)
        last = streaming.request("GET", "/up/echo")
        assert (last.status, worker_of(last), closes(last)) == (200, worker_of(response), True)
        tunnel.send(TEXT, b"still here")
        assert tunnel.receive_message().payload == b"still here"
        assert not ended(old)()
    eventually(ended(old), RETIREMENT_DEADLINE_S, what="the end of the old worker")
    farm.stop(relay)


def test_a_request_on_a_connection_of_a_retired_worker_uses_the_new_configuration(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair, upstream: UpstreamInThread
) -> None:
    """That of the reload that retired it, and of a later one."""
    relay = start(workers=1)
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=60, interval_ms=100)))
        response = client.read_head()
        put(certificates.issue("renewed-routes", "127.0.0.1"), pair)
        for number, reloads in enumerate((1, 3)):  # the second one is told by two workers
            relay.configuration["routes"] = {f"/new{number}": upstream.url}
            relay.write_configuration()
            relay.signal(signal.SIGHUP)
            # Or more: of two signals at once uvloop may hand one over twice, once from its pipe and once from Python.
            eventually(lambda reloads=reloads: relay.output().count("configuration reloaded") >= reloads, 20)  # type: ignore[misc]
        client.read_body(response)
        assert response.body.count(b"\n\n") == 60
        last = client.request("GET", "/new1/echo")
        assert (last.status, worker_of(last)) == (200, worker_of(response))
    farm.stop(relay)


def test_retired_workers_drain_with_the_others(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair
) -> None:
    relay = start(workers=1)
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=30, interval_ms=100)))
        response = client.read_head()
        put(certificates.issue("renewed-drain", "127.0.0.1"), pair)
        relay.signal(signal.SIGHUP)
        eventually(lambda: serial_shown(relay) == serial_of(pair), 20)
        relay.signal(signal.SIGTERM)
        client.read_body(response)
        assert (response.body.count(b"\n\n"), response.end) == (30, BodyEnd.COMPLETE)
    farm.stop(relay)


@pytest.fixture(name="redis", scope="module")
def fixture_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextlib.contextmanager
def nothing_lost(relay: Relay) -> Iterator[None]:
    """Clients of all kinds, and none of them without its answer: each new connection is a handshake too. One that is
    open before goes on where it is."""
    load = Load(relay, "/up/echo", clients=4, passers_by=3)
    with load.running(), relay.client() as streaming:
        streaming.send(request_bytes("GET", "/up" + sse(events=10_000, interval_ms=20)))
        answering = worker_of(streaming.read_head())
        eventually(lambda: load.answered > ENOUGH)
        yield
        eventually(lambda before=load.answered: load.answered > before + ENOUGH)  # type: ignore[misc]
        eventually(lambda: answering not in load.workers.values(), what="clients' moving on")
        eventually(lambda: waited_for_more(streaming), what="the next event of the stream")
    assert load.failures == []


def waited_for_more(client: RawClient) -> bool:
    """Tells whether what it reads had still to come."""
    began_s = time.monotonic()
    return bool(client.socket.recv(65536)) and time.monotonic() - began_s > 0.005


def test_files_that_change_are_taken_by_themselves_and_no_handshake_fails(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair
) -> None:
    """The certificate first, its key some time later, as a slow hand writes them."""
    relay = start(header_timeout_s=LOADED_S)
    renewed = certificates.issue("by-itself", "127.0.0.1")
    with nothing_lost(relay):
        shutil.copyfile(renewed.certificate, pair.certificate)
        eventually(lambda: "not reloaded" in relay.output())
        assert serial_shown(relay) == serial_of(certificates.good)
        shutil.copyfile(renewed.key, pair.key)
        eventually(lambda: serial_shown(relay) == serial_of(renewed), 20)
    assert relay.output().count("not reloaded") == 1
    assert relay.output().count("certificate reloaded") == 1
    farm.stop(relay)


def test_a_reload_that_is_wanted_through_redis_is_done_once_and_no_handshake_fails(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair, redis: str
) -> None:
    """At once, and though the files look as before. Each worker says which certificate it shows."""
    level(pair)
    relay = start(header_timeout_s=LOADED_S, redis=redis)
    eventually(lambda: shown_by(redis, workers_of(relay)) == {fingerprint(certificates.good)})
    renewed = certificates.issue("wanted", "127.0.0.1")
    old = workers_of(relay)
    with nothing_lost(relay):
        put(renewed, pair)
        level(pair)
        asyncio.run(want_reload(redis))
        eventually(lambda: serial_shown(relay) == serial_of(renewed), 20)
        eventually(lambda: shown_by(redis, workers_of(relay) - old) == {fingerprint(renewed)})
    assert relay.output().count("certificate reloaded") == 1
    assert len(workers_of(relay) - old) == 2
    farm.stop(relay)


def level(pair: Pair) -> None:
    """Makes the files as long and as old as they always are, so that nobody sees from without that they are others."""
    for file in (pair.certificate, pair.key):
        file.write_bytes(file.read_bytes().rstrip().ljust(4096, b"\n"))
        os.utime(file, (1, 1))


def fingerprint(pair: Pair) -> str:
    return LoadedTls(ListenerTls(certificate=str(pair.certificate), key=str(pair.key))).fingerprint


async def want_reload(redis: str) -> None:
    async with connected(redis) as client:
        await client.publish(RELOAD_TLS_CHANNEL, await client.incr(RELOAD_TLS))


def shown_by(redis: str, pids: set[int]) -> set[str]:
    """The fingerprints that these workers say they show; empty as long as one has not said anything."""

    async def said() -> list[bytes]:
        async with connected(redis) as client:
            found: Any = await client.hgetall(WORKERS)  # type: ignore[misc,unused-ignore]
            return list(found.values())

    states = [state for state in map(decode_state, asyncio.run(said())) if state.pid in pids]
    return {state.tls for state in states} if len(states) == len(pids) else set()


def spoil(certificates: Certificates, pair: Pair, how: str) -> None:
    if how == "absent":
        pair.certificate.unlink()
    elif how == "not a certificate":
        pair.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    else:
        shutil.copyfile(certificates.client.key, pair.key)


@pytest.mark.parametrize("how", ["absent", "not a certificate", "another key"])
def test_files_that_cannot_be_used_change_nothing_and_are_told(
    farm: RelayFarm, certificates: Certificates, start: Start, pair: Pair, how: str
) -> None:
    """Not even for a worker that has to be started anew meanwhile."""
    relay = start(workers=1)
    before = workers_of(relay)
    spoil(certificates, pair, how)
    relay.signal(signal.SIGHUP)
    eventually(lambda: "not reloaded" in relay.output())
    assert workers_of(relay) == before
    assert serial_shown(relay) == serial_of(certificates.good)
    kill(before)
    assert relay.get("/up/echo").status == 200
    assert serial_shown(relay) == serial_of(certificates.good)
    relay.excuse_output()
    farm.stop(relay)


def kill(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(ended(pids), what="their death")


def test_where_new_workers_do_not_start_the_old_ones_go_on(
    farm: RelayFarm, start: Start, certificates: Certificates, pair: Pair
) -> None:
    """OpenSSL takes a key on P-521, the listener's TLS library does not; and then a good one is taken again."""
    relay = start(header_timeout_s=LOADED_S)
    before = workers_of(relay)
    unusable(certificates.good, pair)
    load = Load(relay, "/up/echo", clients=4, passers_by=2)
    with load.running():
        relay.signal(signal.SIGHUP)
        eventually(lambda: "did not start" in relay.output(), 20)
        assert workers_of(relay) == before
        assert serial_shown(relay) == serial_of(certificates.good)
        put(certificates.issue("renewed-after", "127.0.0.1"), pair)
        relay.signal(signal.SIGHUP)
        eventually(lambda: serial_shown(relay) == serial_of(pair), 20)
        eventually(ended(before), RETIREMENT_DEADLINE_S)
    assert load.failures == []
    relay.excuse_output()
    farm.stop(relay)


def unusable(model: Pair, pair: Pair) -> None:
    """Writes a certificate like the model, for a key that rustls does not know."""
    like = load_pem_x509_certificate(model.certificate.read_bytes())
    key = ec.generate_private_key(ec.SECP521R1())
    builder = CertificateBuilder(like.issuer, like.subject, key.public_key(), like.serial_number + 1)
    builder = builder.not_valid_before(like.not_valid_before_utc).not_valid_after(like.not_valid_after_utc)
    pem = serialization.Encoding.PEM
    pair.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    pkcs8, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pair.key.write_bytes(key.private_bytes(pem, pkcs8, none))


def test_other_settings_of_the_listener_are_taken_the_same_way(
    farm: RelayFarm, certificates: Certificates, start: Start
) -> None:
    """Here: which versions of HTTP are offered, and whether clients must have a certificate."""
    relay = start(header_timeout_s=LOADED_S)
    old = workers_of(relay)
    relay.configuration["server"]["http"] = "1"
    relay.configuration["tls"]["client_ca"] = str(certificates.ca)
    relay.write_configuration()
    load = Load(relay, "/up/echo", clients=4)
    known = certificates.client_tls("h2", "http/1.1")
    known.load_cert_chain(certificates.client.certificate, certificates.client.key)
    relay.client_tls = known
    with load.running():
        relay.signal(signal.SIGHUP)
        eventually(ended(old), RETIREMENT_DEADLINE_S)
        with relay.client() as client:
            assert client.socket.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]
    assert load.failures == []
    farm.stop(relay)
