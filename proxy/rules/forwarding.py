"""`Forwarded` (RFC 7239) and its `X-Forwarded-*` forerunners, and `Via` (RFC 9110 section 7.6.3)."""

import re
from collections.abc import Sequence
from operator import itemgetter

from proxy.config import Forwarded
from proxy.rules.framing import NOT_COPIED
from proxy.rules.headers import FORWARDING, Header

X_FORWARDED = b"x-forwarded-"
name_of = itemgetter(0)
TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def quoted(value: bytes) -> bytes:
    """Returns a value as RFC 7239 writes it: bare where it is a token, quoted where it is not."""
    if TOKEN.fullmatch(value):
        return value
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def node(address: bytes) -> bytes:
    """Returns an address as the node name of RFC 7239 section 6: IPv6 in brackets, an unknown one as `unknown`."""
    if not address:
        return b"unknown"
    return quoted(b"[" + address + b"]") if b":" in address else address


def forwarding_headers(
    policy: Forwarded, headers: Sequence[Header], address: bytes, scheme: bytes, host: bytes
) -> list[Header]:
    """Returns the fields with this hop's `Forwarded`, `X-Forwarded-For`, `-Proto` and `-Host` as the policy says.

    APPEND joins what came before with commas and keeps a `-Proto` and `-Host` that is there, since they tell of the
    first hop; REPLACE starts anew; OFF returns the fields as they are.
    """
    if policy is Forwarded.OFF:
        return list(headers)
    others = [pair for pair in headers if pair[0] not in FORWARDING]
    before: dict[bytes, bytes] = {}
    if policy is Forwarded.APPEND:
        for name in FORWARDING:
            values = [value for field, value in headers if field == name]
            if values:
                before[name] = b", ".join(values)
    element = b"for=" + node(address) + b";proto=" + scheme + (b";host=" + quoted(host) if host else b"")
    others.append((b"forwarded", joined(before.get(b"forwarded"), element)))
    others.append((b"x-forwarded-for", joined(before.get(b"x-forwarded-for"), address or b"unknown")))
    others.append((b"x-forwarded-proto", before.get(b"x-forwarded-proto", scheme)))
    if host or b"x-forwarded-host" in before:
        others.append((b"x-forwarded-host", before.get(b"x-forwarded-host", host)))
    return others


def claims_dropped(policy: Forwarded, real_ip_header: str | None) -> frozenset[bytes]:
    """Returns the fields that do not cross to a balanced upstream from a client that is not trusted.

    They are NOT_COPIED, and those by which it could tell the upstream what it likes of where it comes from; but for
    what the policy itself writes anew or adds to.
    """
    claims = {b"x-real-ip"} if real_ip_header is None else {b"x-real-ip", real_ip_header.encode()}
    return NOT_COPIED | (claims | FORWARDING if policy is Forwarded.OFF else claims - FORWARDING)


def without_claims(dropped: frozenset[bytes], claims: frozenset[bytes], received: Sequence[Header]) -> frozenset[bytes]:
    """Returns the fields that do not cross where those of `claims_dropped` are not to: they, and any X-Forwarded-*."""
    dropped = claims if dropped is NOT_COPIED else dropped | claims
    if X_FORWARDED in b"\n".join(map(name_of, received)):
        dropped |= {name for name, _ in received if name.startswith(X_FORWARDED)} - FORWARDING
    return dropped


def joined(before: bytes | None, added: bytes) -> bytes:
    """Returns a list field's value with one member more."""
    return added if not before else before + b", " + added
