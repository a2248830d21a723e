"""The harness: upstreams that live for the session, one relay that has a route for nearly everything, more on demand.

After each test, whatever it was, the output of every living relay is searched for tracebacks and secrets, so that the
test that caused one is the test that fails.
"""

import contextlib
import socket
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from loadtests import fake_provider, fake_upstream
from loadtests.fake_provider import FakeProvider
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end import metering, websocket_upstream
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.harness import (
    BODY_BYTES_MAX,
    SHORT_TIMEOUT_S,
    SMALL_HEAD_BYTES_MAX,
    WEBSOCKET_BYTES_MAX,
    Places,
    RelayFarm,
    Seen,
)
from tests.end_to_end.key_pool import Pool, Pools, configuration
from tests.end_to_end.metering import Metering
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_upstream import WebSocketUpstream


@pytest.fixture(name="certificates", scope="session")
def fixture_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="upstream", scope="session")
def fixture_upstream() -> Iterator[UpstreamInThread]:
    with fake_upstream.running_in_thread() as upstream:
        yield upstream


@pytest.fixture(name="tls_upstream", scope="session")
def fixture_tls_upstream(certificates: Certificates) -> Iterator[UpstreamInThread]:
    yield from _tls_upstream(str(certificates.good.certificate), str(certificates.good.key), None)


@pytest.fixture(name="misnamed_upstream", scope="session")
def fixture_misnamed_upstream(certificates: Certificates) -> Iterator[UpstreamInThread]:
    yield from _tls_upstream(str(certificates.misnamed.certificate), str(certificates.misnamed.key), None)


@pytest.fixture(name="expired_upstream", scope="session")
def fixture_expired_upstream(certificates: Certificates) -> Iterator[UpstreamInThread]:
    yield from _tls_upstream(str(certificates.expired.certificate), str(certificates.expired.key), None)


@pytest.fixture(name="mutual_tls_upstream", scope="session")
def fixture_mutual_tls_upstream(certificates: Certificates) -> Iterator[UpstreamInThread]:
    good = certificates.good
    yield from _tls_upstream(str(good.certificate), str(good.key), str(certificates.ca))


def _tls_upstream(certificate: str, key: str, client_ca: str | None) -> Iterator[UpstreamInThread]:
    with fake_upstream.running_in_thread(fake_upstream.listener_tls(certificate, key, client_ca)) as upstream:
        yield upstream


@pytest.fixture(name="websockets", scope="session")
def fixture_websockets() -> Iterator[WebSocketUpstream]:
    with websocket_upstream.running_in_thread() as upstream:
        yield upstream


@pytest.fixture(name="places", scope="session")
def fixture_places() -> Iterator[Places]:
    with contextlib.ExitStack() as stack:
        refused = stack.enter_context(socket.socket())
        refused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        for _ in range(4):
            knock = stack.enter_context(socket.socket())
            knock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                knock.connect(address)
        yield Places(f"127.0.0.1:{refused.getsockname()[1]}", f"127.0.0.1:{address[1]}")


@pytest.fixture(name="farm", scope="session")
def fixture_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayFarm]:
    """Relays on demand. Those that a test has not ended itself are ended, and examined, with the session."""
    farm = RelayFarm(tmp_path_factory.mktemp("relays"))
    yield farm
    while farm.alive:
        farm.stop(farm.alive[-1])


@pytest.fixture(name="relay", scope="session")
def fixture_relay(
    farm: RelayFarm,
    certificates: Certificates,
    upstream: UpstreamInThread,
    tls_upstream: UpstreamInThread,
    misnamed_upstream: UpstreamInThread,
    expired_upstream: UpstreamInThread,
    mutual_tls_upstream: UpstreamInThread,
    websockets: WebSocketUpstream,
    places: Places,
) -> Relay:
    """The relay that most tests share: one worker, and a route for each behaviour that a route can be told."""
    trusting: dict[str, Any] = {"ca": str(certificates.ca)}
    identified = trusting | {"certificate": str(certificates.client.certificate), "key": str(certificates.client.key)}
    routes: dict[str, Any] = {
        "/up": upstream.url,
        "/base": {"target": f"{upstream.url}/base"},
        "/up/nested": {"target": f"{upstream.url}/deeper"},
        "/preserve": {"target": upstream.url, "preserve_host": True},
        "/append": {"target": upstream.url, "forwarded": "append"},
        "/replace": {"target": upstream.url, "forwarded": "replace"},
        "/via": {"target": upstream.url, "via": "relaygate"},
        "/limited": {"target": upstream.url, "body_bytes_max": BODY_BYTES_MAX},
        "/small-head": {"target": upstream.url, "response_head_bytes_max": SMALL_HEAD_BYTES_MAX},
        "/head-timeout": {"target": upstream.url, "head_timeout_s": SHORT_TIMEOUT_S},
        "/idle-timeout": {"target": upstream.url, "idle_timeout_s": SHORT_TIMEOUT_S},
        "/refused": f"http://{places.refused}",
        "/black-hole": {"target": f"http://{places.black_hole}", "connect_timeout_s": SHORT_TIMEOUT_S},
        "/unresolvable": "http://no-such-name.invalid",
        "/tls": {"target": tls_upstream.url, "tls": trusting},
        "/tls-named": {"target": misnamed_upstream.url, "tls": trusting | {"server_name": "elsewhere.test"}},
        "/tls-unverified": {"target": misnamed_upstream.url, "tls": {"verify": False}},
        "/tls-stranger": {"target": tls_upstream.url, "tls": {"ca": str(certificates.stranger_ca)}},
        "/tls-system": {"target": tls_upstream.url},
        "/tls-misnamed": {"target": misnamed_upstream.url, "tls": trusting},
        "/tls-expired": {"target": expired_upstream.url, "tls": trusting},
        "/tls-to-plain": {"target": f"https://{upstream.authority}", "tls": trusting},
        "/plain-to-tls": {"target": f"http://{tls_upstream.authority}"},
        "/mutual": {"target": mutual_tls_upstream.url, "tls": identified},
        "/mutual-anonymous": {"target": mutual_tls_upstream.url, "tls": trusting},
        "/ws": websockets.url,
        "/ws-small": {"target": websockets.url, "websocket_message_bytes_max": WEBSOCKET_BYTES_MAX},
        "/ws-to-http": upstream.url,
    }
    return farm.start({"routes": routes})


@pytest.fixture(name="provider", scope="session")
def fixture_provider() -> Iterator[FakeProvider]:
    with fake_provider.running() as provider:
        yield provider


@pytest.fixture(name="pools", scope="session")
def fixture_pools(farm: RelayFarm, provider: FakeProvider) -> Pools:
    """The system that most tests of the key pool share: two workers, and a group of keys for each test."""
    system = System(farm.directory(), configuration(provider))
    farm.adopt(system)
    eventually(system.admin_answers, 15, what="the admin API")
    return Pools(system, provider)


@pytest.fixture(name="pool")
def fixture_pool(pools: Pools) -> Pool:
    return pools.new()


@pytest.fixture(name="metering", scope="session")
def fixture_metering(
    farm: RelayFarm,
    provider: FakeProvider,
    upstream: UpstreamInThread,
    websockets: WebSocketUpstream,
    places: Places,
) -> Metering:
    """The system that most tests of access tokens share: two workers, and tokens for each test."""
    system = System(farm.directory(), metering.configuration(provider, upstream, websockets, places))
    farm.adopt(system)
    eventually(system.admin_answers, 15, what="the admin API")
    metered = Metering(system, provider)
    metered.begin()
    return metered


@pytest.fixture(name="seen")
def fixture_seen(upstream: UpstreamInThread) -> Seen:
    return Seen(upstream)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of what the test's own relays have printed."""
    report = yield
    farm = getattr(item, "funcargs", {}).get("farm")
    if report.failed and farm is not None:
        report.sections += [(f"output of {relay.directory.name}", relay.tail()) for relay in farm.alive[-2:]]
    return report


@pytest.fixture(autouse=True)
def _no_relay_says_what_it_must_not(farm: RelayFarm) -> Iterator[None]:
    yield
    for relay in farm.alive:
        relay.check_output()
