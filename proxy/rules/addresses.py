"""Which targets lead into somebody's own network, and so are refused unless the operator allows them (SSRF).

Sources: IANA's registries of special-purpose addresses (RFC 6890; as of 2025) and of the IPv6 address space. Stricter
than they are where what an address leads to is near, whatever the registry says of its reach.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

IPV4 = tuple(
    (IPv4Network(block), word)
    for block, word in (
        ("0.0.0.0/8", "unspecified"),  # RFC 791: this network; Linux connects 0.0.0.0 to itself
        ("10.0.0.0/8", "private"),  # RFC 1918
        ("100.64.0.0/10", "shared"),  # RFC 6598: behind a carrier's NAT; Alibaba's metadata
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata"),  # Azure's WireServer, public by its number only
        ("169.254.0.0/16", "link-local"),  # RFC 3927; most clouds' metadata
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),  # RFC 6890: protocol assignments, some of them a NAT or a relay nearby
        ("192.0.2.0/24", "documentation"),  # RFC 5737
        ("192.88.99.0/24", "reserved"),  # RFC 7526: the nearest 6to4 relay
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),  # RFC 2544
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)
# The first block that an address is in counts. Only 2000::/3 is given out for unicast, so the rest is refused unseen:
# local-use NAT64 (64:ff9b:1::/48, which may hold an IPv4 address at any of five places), IPv4-compatible addresses,
# discard-only and dummy prefixes (100::/64, 100:0:0:1::/64), segment routing (5f00::/16), and what is still to come.
IPV6 = tuple(
    (IPv6Network(block), word)
    for block, word in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", None),  # judged by the IPv4 address inside, as are the other two of EMBEDDING
        ("64:ff9b::/96", None),
        ("2001:db8::/32", "documentation"),  # RFC 3849
        ("2001::/23", "reserved"),  # RFC 2928: protocol assignments, Teredo and benchmarking among them
        ("3fff::/20", "documentation"),  # RFC 9637
        ("2000::/3", None),
        ("fc00::/7", "private"),  # RFC 4193; AWS's metadata
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),  # RFC 3879
        ("ff00::/8", "multicast"),
        ("::/0", "reserved"),
    )
)
# Blocks whose addresses lead on to an IPv4 address, and how many bits stand behind that one.
EMBEDDING = (
    (IPv6Network("::ffff:0:0/96"), 0),  # RFC 4291: IPv4-mapped
    (IPv6Network("64:ff9b::/96"), 0),  # RFC 6052: NAT64
    (IPv6Network("2002::/16"), 80),  # RFC 3056: 6to4
)
NAMES = {
    "localhost": "loopback",  # RFC 6761
    "local": "link-local",  # RFC 6762
    "internal": "private",  # ICANN resolution 2024.07.29.06; Google's metadata.google.internal
}


def target_refusal(target: str) -> str | None:
    """Returns why a target's host is refused without asking DNS, in one word; None where it is public or not known.

    The target is a valid `http(s)://host[:port][/base]`. Names are judged with those below them.
    """
    host = urlsplit(target).hostname or ""
    try:
        return refusal(ip_address(host))
    except ValueError:
        return NAMES.get(host.removesuffix(".").rpartition(".")[2])


def refusal(address: IPv4Address | IPv6Address) -> str | None:
    """Returns why an address is refused, in one word (`loopback`, `private`); None for a public one."""
    if isinstance(address, IPv4Address):
        return next((word for block, word in IPV4 if address in block), None)
    for block, bits in EMBEDDING:
        if address in block:
            return refusal(IPv4Address(int(address) >> bits & 0xFFFFFFFF))
    return next(word for block, word in IPV6 if address in block)
