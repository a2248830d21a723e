"""Where a client shows its access token, and what that token lets it do. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from proxy.rules.access_tokens import AccessToken
from proxy.rules.headers import Header

OWN_FIELDS = (b"accesstoken", b"access-token")
"""Fields that are for the relay alone: beside one of them, the others are the upstream's."""
SDK_FIELDS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
"""Where the SDKs of OpenAI, Anthropic, Google and Azure put what they are given as an API key."""
AUTHORIZATION = b"authorization"
FIELDS = {name: rank for rank, name in enumerate((*OWN_FIELDS, *SDK_FIELDS))}
TOKEN_BYTES_MAX = 4096


def shown(received: Sequence[Header]) -> tuple[bytes, list[bytes]] | None:
    """Returns the access token that a request shows, and the names of all fields in which it stands: programs that are
    unsure put it everywhere. None where it shows none.

    A field that is there twice shows none: two servers could take two different ones.
    """
    found: Header | None = None
    for pair in received:
        if pair[0] in FIELDS:
            if found is not None:
                return shown_among([each for each in received if each[0] in FIELDS])
            found = pair
    if found is None:
        return None
    token = token_in(found)
    return (token, [found[0]]) if token and len(token) <= TOKEN_BYTES_MAX else None


def shown_among(found: list[Header]) -> tuple[bytes, list[bytes]] | None:
    """The same of several fields, of which each may show one."""
    found.sort(key=_rank)
    names = [name for name, _ in found]
    for pair in found:
        name, token = pair[0], token_in(pair)
        if not token and name not in OWN_FIELDS:
            continue
        if not token or len(token) > TOKEN_BYTES_MAX or names.count(name) > 1:
            return None
        return token, [each for each, said in found if each == name or said.strip().rpartition(b" ")[2] == token]
    return None


def token_in(field: Header) -> bytes:
    """Returns what a field shows, without a scheme; nothing where that is no token."""
    name, value = field
    return bearer(value) if name == AUTHORIZATION else value.strip()


def bearer(value: bytes) -> bytes:
    """Returns the token of an `Authorization` field (RFC 6750 section 2.1); nothing of another scheme."""
    if value[:7] != b"Bearer " and value[:7].lower() != b"bearer ":
        return b""
    return value[7:].strip()


def _rank(pair: Header) -> int:
    return FIELDS[pair[0]]


def opens(token: AccessToken, prefix: str, address: str) -> bool:
    """Tells whether a token is for a route, and for a client at an address."""
    return (not token.routes or prefix in token.routes) and (not token.networks or is_within(address, token.networks))


def is_for_model(token: AccessToken, model: str) -> bool:
    """Tells whether a token is for a model. One that is for some is for none whose name cannot be told."""
    return not token.models or any(
        model.startswith(name[:-1]) if name.endswith("*") else model == name for name in token.models if model
    )


def is_within(address: str, networks: Sequence[str]) -> bool:
    """Tells whether an IP address lies in one of the networks; an IPv4 one that is mapped into IPv6 counts as IPv4."""
    try:
        here = ip_address(address)
    except ValueError:
        return False
    here = getattr(here, "ipv4_mapped", None) or here
    return any(here in network(text) for text in networks)


@lru_cache(maxsize=4096)
def network(text: str) -> IPv4Network | IPv6Network:
    """Returns a network; raises ValueError for what is none."""
    return ip_network(text)
