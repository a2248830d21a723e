"""Targets that are not public, where the relay is told to refuse them: by their text at the start, by their addresses
when it connects.

A name that leads to this machine is taken from the machine's own hosts file, so nothing asks a name server.
"""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loadtests import fake_upstream
from loadtests.fake_upstream import UpstreamInThread
from proxy.rules.addresses import NAMES, refusal
from tests.end_to_end.asking import answer
from tests.end_to_end.harness import RelayFarm
from tests.end_to_end.raw_client import Response
from tests.end_to_end.relay_process import Relay, refused_start
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import WebSocketClient


class Named(NamedTuple):
    """An upstream and a name of this machine that leads to it."""

    host: str
    address: str
    upstream: UpstreamInThread

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.upstream.port}"


def private_name() -> tuple[str, str]:
    """A name in the hosts file that only its address gives away, and that address; skips where there is none."""
    for line in Path("/etc/hosts").read_text(encoding="utf-8").splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            if name.rpartition(".")[2] not in NAMES and leads_here(name, address):
                return name, address
    pytest.skip("no name in /etc/hosts leads to a private address of this machine alone, but for localhost")


def leads_here(name: str, address: str) -> bool:
    """Whether a name has this address only, it is a private one, and a server can be started there."""
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
        with socket.create_server((address, 0), family=found[0][0]):
            return {info[4][0] for info in found} == {address} and refusal(ip_address(address)) is not None
    return False


@pytest.fixture(name="named", scope="module")
def fixture_named() -> Iterator[Named]:
    name, address = private_name()
    with fake_upstream.running_in_thread(host=address) as upstream:
        yield Named(name, address, upstream)


@pytest.fixture(name="guarded", scope="module")
def fixture_guarded(farm: RelayFarm, named: Named) -> Iterator[Relay]:
    """A relay that refuses them, as one does that is told nothing."""
    with farm.running(configuration(named, allow_private_targets=False)) as relay:
        yield relay


def configuration(named: Named, **server: object) -> dict[str, Any]:
    return {"server": server, "routes": {"/named": named.url, "/tls": f"https://{named.host}:{named.upstream.port}"}}


def assert_refused(response: Response, named: Named) -> None:
    """The answer names neither the host nor an address."""
    assert (response.status, response.error_type()) == (502, "target_refused")
    for secret in (named.host, named.address, str(named.upstream.port)):
        assert secret.encode() not in json.dumps(response.json()["error"]["message"]).encode()


@pytest.mark.parametrize("path", ["/named/echo", "/tls/echo"])
def test_a_name_that_leads_to_a_private_address_is_refused_and_not_connected_to(
    guarded: Relay, named: Named, path: str
) -> None:
    before = named.upstream.connections_total
    for method, body in (("GET", None), ("POST", b"secret")):
        assert_refused(guarded.request(method, path, [], body), named)
    assert named.upstream.connections_total == before


def test_a_websocket_is_refused_too(guarded: Relay, named: Named) -> None:
    before = named.upstream.connections_total
    with guarded.client() as wire:
        assert_refused(WebSocketClient(wire).handshake("/named/chat"), named)
    assert named.upstream.connections_total == before


def test_the_log_has_one_line_with_host_and_reason_however_many_ask(farm: RelayFarm, named: Named) -> None:
    with farm.running(configuration(named, allow_private_targets=False)) as relay:
        for _ in range(5):
            assert relay.get("/named/echo").status == 502
        lines = [line for line in relay.output().splitlines() if f"target {named.host} refused" in line]
        assert len(lines) == 1
        why = f"{named.address} is {refusal(ip_address(named.address))}"
        assert lines[0].endswith(f"refused: {why}; server.allow_private_targets: true allows it")


def test_a_reload_changes_it_and_closes_connections_that_are_no_longer_allowed(farm: RelayFarm, named: Named) -> None:
    def reload(relay: Relay, *, allowed: bool) -> None:
        relay.configuration = {**relay.configuration, **configuration(named, **server, allow_private_targets=allowed)}
        relay.write_configuration()
        before = relay.output().count("configuration reloaded")
        relay.signal(signal.SIGHUP)
        eventually(lambda: relay.output().count("configuration reloaded") > before)

    with farm.running(configuration(named)) as relay:
        server = {key: value for key, value in relay.configuration["server"].items() if key != "allow_private_targets"}
        assert relay.get("/named/echo").status == 200
        eventually(lambda: named.upstream.idle_connections() == 1)
        reload(relay, allowed=False)
        eventually(lambda: named.upstream.open_connections == 0, what="the end of the pooled connection")
        assert_refused(relay.get("/named/echo"), named)
        reload(relay, allowed=True)
        assert relay.get("/named/echo").status == 200


def test_a_reload_that_would_refuse_a_literal_target_changes_nothing(
    farm: RelayFarm, upstream: UpstreamInThread
) -> None:
    with farm.running({"routes": {"/up": upstream.url}}) as relay:
        assert relay.get("/up/echo").status == 200
        relay.configuration["server"]["allow_private_targets"] = False
        relay.write_configuration()
        relay.signal(signal.SIGHUP)
        eventually(lambda: "not reloaded: " in relay.output())
        assert "routes./up.target: " in relay.output()
        assert relay.get("/up/echo").status == 200


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("http://127.0.0.1:9", "loopback"),
        ("http://10.0.0.1", "private"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://[::1]:9", "loopback"),
        ("http://[::ffff:10.0.0.1]", "private"),
        ("http://localhost:9", "loopback"),
        ("https://metadata.google.internal", "private"),
    ],
)
def test_a_target_that_tells_by_itself_is_refused_at_the_start(tmp_path: Path, target: str, word: str) -> None:
    told = refused_start(tmp_path, {"routes": {"/a": "https://a.test", "/b": target}})
    assert "relaygate.yaml:3: routes./b.target: " in told
    assert f"this one is {word} (server.allow_private_targets: true" in told


def test_a_redirect_to_a_private_address_is_relayed_and_not_followed(relay: Relay, upstream: UpstreamInThread) -> None:
    """So it is the client that decides whether to go there, and from where it stands."""
    before = len(upstream.requests)
    for location in ("http://169.254.169.254/latest/meta-data/", f"{upstream.url}/echo"):
        response = relay.get("/up" + answer(status=307, header=f"location:{location}"))
        assert (response.status, response.values("location")) == (307, [location.encode()])
    assert len(upstream.requests) == before + 2
