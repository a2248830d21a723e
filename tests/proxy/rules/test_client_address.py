"""The client's own address: what proxies that are trusted say, and nothing that others say."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.client_address import client_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("127.0.0.1/32")]


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        # a proxy that is trusted says who it was reached from
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("2001:db8::1", ["2001:4860::1"], "2001:4860::1"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["::ffff:203.0.113.5"], "203.0.113.5"),
        # several of them in a row
        ("10.0.0.1", ["203.0.113.5, 10.0.0.3,10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5", "10.0.0.3", "10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # what the client itself has written stands further left
        ("10.0.0.1", ["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["127.0.0.1, 10.9.9.9, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["127.0.0.1", "203.0.113.5"], "203.0.113.5"),
        # nobody else is believed
        ("203.0.113.5", ["127.0.0.1"], "203.0.113.5"),
        ("203.0.113.5", ["10.0.0.1, 10.0.0.2"], "203.0.113.5"),
        ("local", ["127.0.0.1"], "local"),
        ("", ["127.0.0.1"], ""),
        # with ports, as some proxies write
        ("10.0.0.1", ["203.0.113.5:4711"], "203.0.113.5"),
        ("10.0.0.1", ["[2001:4860::1]:4711"], "2001:4860::1"),
        ("10.0.0.1", ["[2001:4860::1]"], "2001:4860::1"),
        # what is no address ends the reading
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.5, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.5,"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3"], "10.0.0.1"),
    ],
)
def test_the_list_is_read_from_the_right_as_far_as_it_is_trusted(peer: str, fields: list[str], client: str) -> None:
    assert client_address(peer, fields, TRUSTED) == client


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_address("10.0.0.1", ["203.0.113.5"], []) == "10.0.0.1"
    assert client_address("::ffff:10.0.0.1", ["203.0.113.5"], []) == "::ffff:10.0.0.1"


@given(st.text(), st.lists(st.text(alphabet="0123456789.:,[]a ")))
def test_nothing_that_a_client_writes_before_a_proxy_changes_what_that_says(peer: str, written: list[str]) -> None:
    assert client_address("10.0.0.1", [*written, "203.0.113.5"], TRUSTED) == "203.0.113.5"
    assert client_address("203.0.113.5", written, TRUSTED) == "203.0.113.5"
    client_address(peer, written, TRUSTED)
