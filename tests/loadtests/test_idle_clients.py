"""Idle clients notice both a wrong answer and a connection that was closed behind their back."""

import ssl

import pytest

from loadtests.idle_clients import IdleError, idle_clients, source_address
from loadtests.upstreams import Upstreams


def test_connections_stay_open_until_the_end(origins: Upstreams) -> None:
    with idle_clients(origins.http.port, 10) as clients:
        assert clients.closed() == 0


def test_connections_with_tls_trust_the_authority_only(origins: Upstreams) -> None:
    trusting = ssl.create_default_context(cafile=str(origins.https.authority))
    with idle_clients(origins.https.port, 2, trusting) as clients:
        assert clients.closed() == 0
    with pytest.raises(IdleError, match="SSLCertVerificationError"), idle_clients(origins.stranger.port, 1, trusting):
        pass


def test_a_closed_connection_is_counted(origins: Upstreams) -> None:
    with idle_clients(origins.http.port, 3) as clients:
        clients.connections[1].close()
        assert clients.closed() == 1


@pytest.mark.parametrize(("number", "address"), [(0, "127.0.0.1"), (19_999, "127.0.0.1"), (20_000, "127.0.0.2")])
def test_no_address_runs_out_of_ports(number: int, address: str) -> None:
    assert source_address(number) == address


def test_a_wrong_status_is_an_error(origins: Upstreams) -> None:
    with pytest.raises(IdleError, match="connection 1: status 400"), idle_clients(origins.streaming.port, 3):
        pass
