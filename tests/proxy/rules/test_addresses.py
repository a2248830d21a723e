"""Which addresses a target may have: every block of IANA's registries, their edges, and IPv4 inside IPv6."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.addresses import refusal, target_refusal

Form = Callable[[IPv4Address], IPv6Address]

# IANA IPv4 Special-Purpose Address Registry, every row, and the blocks that other registries keep apart.
IPV4 = [
    ("0.0.0.0/8", "unspecified"),
    ("0.0.0.0/32", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.0.0/29", "reserved"),  # IPv4 service continuity
    ("192.0.0.8/32", "reserved"),  # dummy
    ("192.0.0.9/32", "reserved"),  # port control protocol: the NAT nearby
    ("192.0.0.10/32", "reserved"),  # TURN: the relay nearby
    ("192.0.0.170/32", "reserved"),  # NAT64 discovery
    ("192.0.0.171/32", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", None),  # AS112
    ("192.52.193.0/24", None),  # AMT
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", None),  # AS112
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/5", "reserved"),
    ("255.255.255.255/32", "broadcast"),
]
# IANA IPv6 Special-Purpose Address Registry, every row that embeds nothing, and what is not given out for unicast.
IPV6 = [
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "reserved"),
    ("100::/64", "reserved"),
    ("100:0:0:1::/64", "reserved"),
    ("2001::/23", "reserved"),
    ("2001::/32", "reserved"),  # Teredo
    ("2001:1::1/128", "reserved"),
    ("2001:1::2/128", "reserved"),
    ("2001:1::3/128", "reserved"),
    ("2001:2::/48", "reserved"),
    ("2001:3::/32", "reserved"),
    ("2001:4:112::/48", "reserved"),
    ("2001:10::/28", "reserved"),
    ("2001:20::/28", "reserved"),
    ("2001:30::/28", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("2620:4f:8000::/48", None),  # AS112
    ("3fff::/20", "documentation"),
    ("5f00::/16", "reserved"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    ("::/96", "reserved"),  # IPv4-compatible; its edges are the first two rows
    ("4000::/3", "reserved"),
    ("e000::/4", "reserved"),
    ("fe00::/9", "reserved"),
]
# A cloud's metadata, by the address that its documents give.
METADATA = [
    ("169.254.169.254", "link-local"),  # AWS, Azure, Google, Oracle, DigitalOcean
    ("169.254.170.2", "link-local"),  # AWS's tasks
    ("fd00:ec2::254", "private"),  # AWS
    ("fd20:ce::254", "private"),  # Google
    ("100.100.100.200", "shared"),  # Alibaba
    ("192.0.0.192", "reserved"),  # Oracle's older cloud
    ("168.63.129.16", "metadata"),  # Azure's host
    ("fe80::a9fe:a9fe", "link-local"),  # OpenStack
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    "2606:4700:4700::1111",
    "2a00:1450:4001::200e",
    "3ffe:ffff::",
]


@pytest.mark.parametrize(("block", "word"), [*IPV4, *IPV6])
def test_a_block_of_the_registries_is_refused_from_its_first_address_to_its_last(block: str, word: str | None) -> None:
    network = ip_network(block)
    middle = network[network.num_addresses // 2]
    last = network[-2] if network[-1] == ip_address("255.255.255.255") and network.num_addresses > 1 else network[-1]
    first = network[2] if block == "::/96" else network[0]
    assert [refusal(address) for address in (first, middle, last)] == [word] * 3


@pytest.mark.parametrize(("address", "word"), METADATA)
def test_metadata_of_clouds_is_refused(address: str, word: str) -> None:
    assert refusal(ip_address(address)) == word


@pytest.mark.parametrize("address", PUBLIC)
def test_what_stands_beside_a_block_is_public(address: str) -> None:
    assert refusal(ip_address(address)) is None


def test_a_zone_makes_no_difference() -> None:
    assert refusal(ip_address("fe80::1%eth0")) == "link-local"
    assert refusal(ip_address("2606:4700:4700::1111%eth0")) is None


def mapped(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(f"::ffff:{inner}")


def nat64(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(f"64:ff9b::{inner}")


def six_to_four(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(0x2002 << 112 | int(inner) << 80 | 0x1234)


def compatible(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(int(inner))


def teredo_client(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(0x20010000 << 96 | int(IPv4Address("8.8.8.8")) << 64 | int(inner) ^ 0xFFFFFFFF)


def teredo_server(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(0x20010000 << 96 | int(inner) << 64)


def local_nat64(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b:1::")) | int(inner))


ANY_IPV4 = st.ip_addresses(v=4) | st.sampled_from([block for block, _ in IPV4]).flatmap(
    lambda block: st.ip_addresses(network=block)
)


@given(ANY_IPV4, st.sampled_from([mapped, nat64, six_to_four]))
def test_an_ipv6_address_that_leads_to_an_ipv4_address_is_judged_as_that_one(inner: IPv4Address, form: Form) -> None:
    assert refusal(form(inner)) == refusal(inner)


@given(ANY_IPV4, st.sampled_from([compatible, teredo_client, teredo_server, local_nat64]))
def test_forms_that_nobody_needs_are_refused_whatever_is_in_them(inner: IPv4Address, form: Form) -> None:
    assert refusal(form(inner)) is not None


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_private_but_for_what_leads_on(
    address: IPv4Address | IPv6Address,
) -> None:
    """Python's own table, which differs between its versions, is a second opinion."""
    if refusal(address) is None and address.is_private:
        assert any(address in ip_network(block) for block in ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16"))


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("http://127.0.0.1:9001/base", "loopback"),
        ("https://10.1.2.3", "private"),
        ("http://[::1]", "loopback"),
        ("http://[::ffff:169.254.169.254]/latest", "link-local"),
        ("http://[2606:4700:4700::1111]:8443", None),
        ("https://8.8.8.8", None),
        ("http://localhost:8080", "loopback"),
        ("http://LOCALHOST", "loopback"),
        ("http://localhost.", "loopback"),
        ("http://a.b.localhost/x", "loopback"),
        ("http://metadata.google.internal/computeMetadata/v1", "private"),
        ("http://instance-data.ec2.internal", "private"),
        ("http://host.docker.internal.", "private"),
        ("http://printer.local", "link-local"),
        ("http://service.namespace.svc.cluster.local", "link-local"),
        ("https://api.openai.com", None),
        ("https://localhost.example", None),
        ("https://internal.example", None),
        ("https://mylocalhost", None),
        ("http://metadata", None),
    ],
)
def test_a_host_that_tells_by_itself_where_it_leads(target: str, word: str | None) -> None:
    assert target_refusal(target) == word
