"""Who a request really comes from, where proxies stand in front: the client's own address. Pure.

Each proxy adds at the right end of `X-Forwarded-For` the address that it was reached from; what stands further left was
there already, and may be anybody's invention. So the list is read from the right, as far as those who wrote it are
trusted: the peer first, then whom it names, and so on. The first that is not trusted is the client.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Sequence[Network]) -> str:
    """Returns the client's address.

    `peer` is who is connected, `forwarded_for` the values of the fields `X-Forwarded-For` in their order. An entry that
    is no address (with a port or not) ends the reading: nobody knows who wrote what is left of it. A peer that is not
    trusted, or has no IP address, is the client.
    """
    address = _address(peer)
    if not trusted or address is None or not _is_in(address, trusted):
        return peer
    for entry in reversed(",".join(forwarded_for).split(",")):
        before = _address(entry.strip())
        if before is None:
            break
        address = before
        if not _is_in(address, trusted):
            break
    return str(address)


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; an IPv4-mapped one as IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
