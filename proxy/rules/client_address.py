"""Who a request really comes from, where proxies stand in front: the client's own address. Pure.

Each proxy adds at the right end of `X-Forwarded-For`, or of `Forwarded`, the address that it was reached from; what
stands further left was there already, and may be anybody's invention. So the list is read from the right, as far as
those who wrote it are trusted: the peer first, then whom it names, and so on. The first that is not trusted is the
client.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice

from proxy.rules.headers import Header

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORWARDED = b"forwarded"
FORWARDED_FOR = b"x-forwarded-for"
REMEMBERED_MAX = 1024
"""Of so many peers it is remembered whether they are trusted, and of so many values whom they name."""
REMEMBERED_BYTES_MAX = 256
"""Of longer values it is not. To read one takes 5 to 20 µs, as long as a quarter of a request."""

_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"  # RFC 7239 section 6.3 lets it be obfuscated
_NODE = re.compile(rf"\[([0-9A-Fa-f:.]+)\]{_PORT}|([0-9.]+){_PORT}|([0-9A-Fa-f:.]+)")
_PAIR = re.compile(r"[ \t;]*([^\s;,=\"]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]*)[ \t]*(?=;|$)")


class ClientAddresses:
    """Tells a listener's clients by their own addresses, as far as the proxies in front are trusted to tell them.

    These say it in `X-Forwarded-For`, or, where that is not there, in `Forwarded` (RFC 7239); with a `real_ip_header`
    in that field alone, which may be one of the two. Any other has the address itself; of several the last counts.
    """

    def __init__(self, trusted: Iterable[str] = (), real_ip_header: str | None = None) -> None:
        """`trusted` are networks, `real_ip_header` the name of a field in lower case."""
        self._trusted = [ip_network(network) for network in trusted]
        self._field = None if real_ip_header is None else real_ip_header.encode()
        self._trusts = lru_cache(REMEMBERED_MAX)(self._is_trusted)
        self._named_before = lru_cache(REMEMBERED_MAX)(self._named)

    def trusts(self, peer: str) -> bool:
        """Tells whether who is connected is believed."""
        return bool(self._trusted) and self._trusts(peer)

    def of(self, peer: str, received: Sequence[Header]) -> str:
        """Returns the client's address: of a request from `peer`, with these fields, whose names are in lower case."""
        if not self._trusted or not self._trusts(peer):
            return peer
        field = self._field or FORWARDED_FOR
        said = b",".join([value for name, value in received if name == field])
        if not said and self._field is None:
            field = FORWARDED
            said = b",".join([value for name, value in received if name == field])
        named = self._named_before if len(said) <= REMEMBERED_BYTES_MAX else self._named
        return named(field, said) or str(_address(peer))

    def _named(self, field: bytes, said: bytes) -> str:
        """Returns whom a field names; nothing where that is nobody."""
        text = said.decode("latin-1")
        if field == FORWARDED:
            return last_before(forwarded_nodes(text), self._trusted)
        return last_before(entries(text) if field == FORWARDED_FOR else islice(entries(text), 1), self._trusted)

    def _is_trusted(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and _is_in(address, self._trusted)


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Sequence[Network]) -> str:
    """Returns the client's address.

    `peer` is who is connected, `forwarded_for` the values of the fields `X-Forwarded-For` in their order. A peer that
    is not trusted, or has no IP address, is the client.
    """
    address = _address(peer)
    if not trusted or address is None or not _is_in(address, trusted):
        return peer
    return last_before(entries(",".join(forwarded_for)), trusted) or str(address)


def last_before(said: Iterable[str], trusted: Sequence[Network]) -> str:
    """Returns the first who is not trusted of those that are named as one before the other, or the last of them.

    What is no address (with a port or not) ends the reading: nobody knows who wrote what is left of it. Where that
    leaves nobody, nothing is returned.
    """
    address = None
    for entry in said:
        before = _address(entry)
        if before is None:
            break
        address = before
        if not _is_in(address, trusted):
            break
    return "" if address is None else str(address)


def entries(text: str) -> Iterator[str]:
    """Yields the members of a list field, the last first (RFC 9110 section 5.6.1)."""
    for entry in reversed(text.split(",")):
        yield entry.strip(" \t")


def forwarded_nodes(text: str) -> Iterator[str]:
    """Yields whom each element of `Forwarded` names by `for=`, the last first; nothing where it names nobody.

    RFC 7239 section 4. It has to be split from the right: a quote that a client opens and never closes would, from the
    left, take what a proxy has put behind it for its own text.
    """
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            quoted = not quoted or _is_escaped(text, at)
        elif text[at] == "," and not quoted:
            yield _node_of(text[at + 1 : end])
            end = at
    yield "" if quoted else _node_of(text[:end])


def _is_escaped(text: str, at: int) -> bool:
    """Tells whether an odd number of backslashes stands before a place."""
    begin = at
    while begin and text[begin - 1] == "\\":
        begin -= 1
    return (at - begin) % 2 == 1


def _node_of(element: str) -> str:
    """Returns the value of `for` in `for=192.0.2.1;proto=http`; nothing where that is not all well-formed."""
    found, at = "", 0
    element = element.strip(" \t;")
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return ""
        name, value = pair.groups()
        if name.lower() == "for":
            if found:
                return ""
            found = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value
        at = pair.end()
    return found


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; an IPv4-mapped one as IPv4.

    One with a zone (`fe80::1%eth0`) is none: a zone is known to its own machine alone.
    """
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    try:
        address = ip_address(found[found.lastindex or 0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
