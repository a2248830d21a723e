"""What tests ask of the harness: relays on demand, the upstream's records since a test began, programs if installed."""

import contextlib
import itertools
import shutil
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadtests.fake_requests import Recorded
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

BODY_BYTES_MAX = 1000
SMALL_HEAD_BYTES_MAX = 4096
WEBSOCKET_BYTES_MAX = 2048
SHORT_TIMEOUT_S = 0.4


class RelayFarm:
    """Starts relays and ends them all, and remembers which are alive."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self.alive: list[Relay] = []

    def start(
        self,
        configuration: Mapping[str, Any],
        client_tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Relay:
        relay = Relay(self.directory(), configuration, client_tls, environment)
        self.adopt(relay)
        return relay

    def directory(self) -> Path:
        """A new one for a relay."""
        directory = self._directory / f"relay-{next(self._numbers)}"
        directory.mkdir()
        return directory

    def adopt(self, relay: Relay) -> None:
        """Start a relay that was made elsewhere; it is watched and ended like the others."""
        try:
            relay.start()
        except BaseException:
            if relay.process is not None:
                relay.kill()
            raise
        self.alive.append(relay)

    def stop(self, relay: Relay) -> None:
        self.alive.remove(relay)
        relay.stop()

    @contextlib.contextmanager
    def running(
        self,
        configuration: Mapping[str, Any],
        client_tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Relay]:
        relay = self.start(configuration, client_tls, environment)
        try:
            yield relay
        finally:
            if relay in self.alive:
                self.stop(relay)


class Seen:
    """What the fake upstream has received since the test began."""

    def __init__(self, upstream: UpstreamInThread) -> None:
        self._upstream = upstream
        self._since = len(upstream.requests)

    def all(self) -> list[Recorded]:
        return self._upstream.requests[self._since :]

    def one(self) -> Recorded:
        """The only request; waits for it, and fails if there are more."""
        eventually(self.all, what="a request at the upstream")
        requests = self.all()
        assert len(requests) == 1, f"{len(requests)} requests: {[(each.connection, each.head) for each in requests]}"
        return requests[0]

    def last(self) -> Recorded:
        eventually(self.all, what="a request at the upstream")
        return self.all()[-1]

    def targets(self) -> list[bytes]:
        return [recorded.target for recorded in self.all()]

    def assert_nothing_smuggled(self, *expected_targets: bytes) -> None:
        """Every request is well formed, and its target is one that the client's first, visible request line named."""
        for recorded in self.all():
            assert not recorded.malformed, f"{recorded.malformed}: {recorded.head!r}"
            assert recorded.target in expected_targets, f"smuggled: {recorded.head!r}"


@dataclass(frozen=True)
class Places:
    """Addresses at which nothing answers as it should."""

    refused: str  # a port nobody listens on
    black_hole: str  # a listener whose backlog is full: SYNs are dropped


def program(name: str) -> str:
    """The path of a client program; skips the test, saying so, where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
