"""Where a request carries a secret: which of the client's own are taken out, and where the upstream's is put in.

`Placement` is compiled once for a route. A query is only cut and appended to: what stays keeps its bytes.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from proxy.rules.headers import HOP_BY_HOP, Header

CLIENT_FIELDS = frozenset(
    (
        b"authorization",
        b"proxy-authorization",
        b"x-authorization",
        b"api-key",
        b"apikey",
        b"x-api-key",
        b"x-apikey",
        b"x-api-token",
        b"x-api-secret",
        b"x-goog-api-key",
        b"x-auth-token",
        b"x-auth-key",
        b"x-token",
        b"x-access-token",
        b"access-token",
        b"accesstoken",
        b"x-admin-key",
        b"x-serverless-authorization",  # Cloud Run takes it before `Authorization`
        b"x-forwarded-access-token",  # oauth2-proxy passes the user's own on in it
        b"ocp-apim-subscription-key",
        b"x-amz-security-token",
        b"cf-aig-authorization",
        b"helicone-auth",
        b"x-portkey-api-key",
        b"x-litellm-api-key",
        # A cookie is a secret too, of a session that another credential is not part of. What breaks without it: nothing
        # of an API; cookies that an edge sets to tell browsers from robots only tie the pool's keys to one another.
        b"cookie",
    )
)
"""Fields of a request in which a client may have put a secret of its own. In lower case, as Granian hands them over."""

CLIENT_PARAMETERS = frozenset(
    (
        b"key",
        b"api_key",
        b"api-key",
        b"apikey",
        b"x-api-key",
        b"x-goog-api-key",
        b"token",
        b"access_token",
        b"access-token",
        b"accesstoken",
        b"api_token",
        b"auth",
        b"auth_token",
        b"auth-token",
        b"authtoken",
        b"authorization",
        b"oauth_token",
        b"bearer_token",
        b"client_secret",
        b"jwt",
        b"subscription-key",
    )
)
"""Parameters of a query in which it may have, in lower case."""

# What tells where a message ends, whom it is for, or is not passed on, cannot carry a credential.
FORBIDDEN_FIELDS = HOP_BY_HOP | {b"host", b"content-length", b"content-type", b"content-encoding", b"expect", b"date"}
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")  # RFC 9110 section 5.6.2
UNRESERVED = re.compile(r"[A-Za-z0-9._~-]{1,100}")  # RFC 3986 section 2.3
SECRET = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,16382}[\x21-\x7e])?")
SEPARATOR = re.compile(rb"([&;])")

# Browsers cannot set fields of a WebSocket's handshake, so APIs take secrets as names of subprotocols: behind a word
# that says so (OpenAI: `openai-insecure-api-key.sk-...`; Kubernetes: `base64url.bearer.authorization.k8s.io.eyJ...`),
# or as the one that follows such a word (Deepgram: `token, KEY`). Beginnings of keys tell the rest.
PROTOCOLS = b"sec-websocket-protocol"
SECRET_PROTOCOL = re.compile(
    rb"(?i).*(?:api[-_]?key|bearer|token|authorization|secret|jwt|auth)[.=:~].+"
    rb"|(?:sk-|pk-|rk-|xai-|gsk_|hf_|AIza|eyJ)[a-z0-9_.-]{12,}"
)
BEFORE_SECRETS = frozenset(
    (
        b"token",
        b"bearer",
        b"basic",
        b"authorization",
        b"auth",
        b"apikey",
        b"api-key",
        b"api_key",
        b"access_token",
        b"jwt",
    )
)


class Placement(NamedTuple):
    """Where a route's credential goes: into `field`, or into the query as `parameter`; one of them is empty.

    `dropped_fields` and `dropped_parameters` are what of the client's does not cross.
    """

    field: bytes
    parameter: bytes
    dropped_fields: frozenset[bytes]
    dropped_parameters: frozenset[bytes]


def credential_field(text: str) -> str:
    """Returns a setting `credential_field` as it is used. Raises ValueError whose text says what was expected."""
    if text.startswith("?"):
        if not UNRESERVED.fullmatch(text[1:]):
            raise ValueError("? and the name of a query parameter, of letters, digits and -._~")
        return text
    if not TOKEN.fullmatch(text):
        raise ValueError("the name of a header field, or ? and the name of a query parameter")
    if text.lower().encode() in FORBIDDEN_FIELDS:
        raise ValueError("a header field that is passed on and has no other meaning")
    return text.lower()


def placement(setting: str) -> Placement:
    """Returns where a valid `credential_field` puts a credential."""
    if setting.startswith("?"):
        name = setting[1:].encode()
        return Placement(b"", name, CLIENT_FIELDS, CLIENT_PARAMETERS | {name.lower()})
    field = setting.lower().encode()
    return Placement(field, b"", CLIENT_FIELDS | {field}, CLIENT_PARAMETERS)


def is_presentable(secret: str) -> bool:
    """Tells whether a secret can stand in a field: visible ASCII without a line break, spaces only within it."""
    return SECRET.fullmatch(secret) is not None


def header(field: bytes, secret: str) -> Header:
    """Returns the field that presents a secret. `Authorization` says `Bearer`, unless the secret names its scheme.

    No API key has a space in it, so one that has is a whole value, such as `Basic dXNlcjpw` (RFC 9110 section 11.4).
    Raises ValueError, without the secret, for one that would break the field.
    """
    if not is_presentable(secret):
        raise ValueError("a credential has characters that no header field can have")
    value = secret.encode("ascii")
    if field == b"authorization" and b" " not in value:
        value = b"Bearer " + value
    return field, value


def shown_as(place: Placement, secret: str) -> Header:
    """Returns how a secret is shown in a place: the field, or the parameter's value behind an empty name.

    Raises ValueError as `header` does.
    """
    if place.parameter:
        return b"", quote_from_bytes(secret.encode(), safe="").encode()
    return header(place.field, secret)


def with_parameter(query: bytes, name: bytes, value: bytes) -> bytes:
    """Returns a query with another parameter as its last, whose value is quoted already."""
    parameter = name + b"=" + value
    return query + b"&" + parameter if query else parameter


def without_secrets(query: bytes, dropped: AbstractSet[bytes] = CLIENT_PARAMETERS) -> bytes:
    """Returns a query without the parameters named `dropped`, all else byte for byte.

    A name counts decoded, in any case and with `[...]` behind it, as servers read it. `;` separates too, since it does
    for some of them.
    """
    if not query:
        return query
    # parts and their separators in turn; a parameter goes with the separator before it
    pieces = SEPARATOR.split(query)
    kept = [
        (pieces[i - 1] if i else b"", pieces[i]) for i in range(0, len(pieces), 2) if name_of(pieces[i]) not in dropped
    ]
    if len(kept) * 2 > len(pieces):
        return query
    return b"".join(separator + part for separator, part in kept)[len(kept[0][0]) if kept else 0 :]


def without_secret_protocols(fields: Sequence[Header]) -> list[Header]:
    """Returns the fields of a handshake without the subprotocols that carry a secret.

    What is left of them is one field, the last (RFC 6455 section 4.1 allows several).
    """
    offered = public_protocols(b",".join(value for name, value in fields if name == PROTOCOLS))
    others = [pair for pair in fields if pair[0] != PROTOCOLS]
    return [*others, (PROTOCOLS, offered)] if offered else others


def public_protocols(offered: bytes) -> bytes:
    """Returns a `Sec-WebSocket-Protocol` without the members that carry a secret; empty where none is left."""
    kept: list[bytes] = []
    before = b""
    for member in offered.split(b","):
        name = member.strip()
        secret = before in BEFORE_SECRETS or SECRET_PROTOCOL.fullmatch(name) is not None
        before = name.lower()
        if name and not secret and before not in BEFORE_SECRETS:
            kept.append(name)
    return b", ".join(kept)


def without_secret(fields: list[Header], secret: bytes) -> list[Header]:
    """Returns the fields of an answer without a secret that stood in the request's query, however they spell it.

    Who redirects often repeats the whole query; so do fields that name the resource.
    """
    plain = unquote_to_bytes(secret)
    return [
        (name, masked(value, plain)) if plain in unquote_to_bytes(value) else (name, value) for name, value in fields
    ]


def masked(value: bytes, plain: bytes) -> bytes:
    """Returns a value with `***` for a secret, any byte of which may be percent-encoded."""
    return re.sub(b"".join(b"(?:%b|(?i:%%%02x))" % (re.escape(bytes((byte,))), byte) for byte in plain), b"***", value)


def name_of(parameter: bytes) -> bytes:
    """Returns the name of one parameter as a server may read it."""
    name = unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" "))
    return name.partition(b"[")[0].strip().lower()
