"""What one value must look like beyond its type. Pure: text in, normalised text out.

Every check raises ValueError whose text says what was expected, in words that fit after "expected ".
"""

import ipaddress
import re
from decimal import Decimal

# RFC 3986 §3.3: a non-empty segment of pchar.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")
# Underscores are no host names by RFC 952, but Compose and Kubernetes make them.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# What inet_aton, and with it many resolvers, would take for an address: 127.1, 0x7f000001, 2130706433.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# RFC 9110 §7.6.3: a pseudonym (token) or a host with an optional port.
_VIA = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?::[0-9]{1,5})?")
# RFC 9110 §5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_QUERY_NAME = re.compile(r"\?[A-Za-z0-9_.~-]+")
_GROUP = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# An upstream's name, a host and a port are one.
_BACKEND = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,400}")
# RFC 6901 section 3.
_POINTER = re.compile(r"(?:/(?:[^/~]|~[01])*)*")
PRICE_DECIMALS_MAX = 9
KEY = "{key}"
"""Stands in a balance query for the key that is asked about."""
_PORT = re.compile(r":[0-9]{1,5}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def prefix(text: str) -> str:
    """A route's prefix without its trailing slash; `/` alone stays."""
    if not text.startswith("/"):
        raise ValueError("a path that starts with /")
    if text == "/":
        return text
    return _path(text.removesuffix("/"), "a path of plain segments, such as /openai")


def health_prefix(text: str) -> str:
    """The path before `/healthz`; the empty text and `/` are the root."""
    return prefix(text).rstrip("/") if text else ""


def target(text: str) -> str:
    """`http(s)://host[:port][/base]` in ASCII, in lower case up to the base, and without a default port."""
    if not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("a URL without spaces, backslashes and control characters")
    scheme, separator, rest = text.partition("://")
    if scheme.lower() not in _DEFAULT_PORTS or not separator:
        raise ValueError("a URL that starts with http:// or https://")
    if "?" in text or "#" in text:
        raise ValueError("a URL without a query and a fragment")
    netloc, slash, path = rest.partition("/")
    if "@" in netloc:
        raise ValueError("a URL without a user name and a password")
    authority = _host_of_url(netloc) + _port_of_url(netloc, scheme.lower())
    _path((slash + path).removesuffix("/"), "a URL whose path has only plain segments")
    return f"{scheme.lower()}://{authority}{slash}{path}"


def origin(text: str) -> str:
    """`http(s)://host[:port]`, as `target`, without a path."""
    url = target(text)
    if "/" in url.partition("://")[2].removesuffix("/"):
        raise ValueError("a URL without a path; a route's base goes before the rest of a path")
    return url.removesuffix("/")


def base(text: str) -> str:
    """A path that goes before others, without its trailing slash; the empty text and `/` are none."""
    return prefix(text).rstrip("/") if text else ""


def health_path(text: str) -> str:
    """The path and query that a health check asks for, as they were written."""
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError("a path that starts with /, such as /health, in ASCII and without spaces")
    return text


def backend_id(text: str) -> str:
    """The id of a backend within its upstream; the empty text stands for the usual one."""
    if text and not _BACKEND.fullmatch(text):
        raise ValueError("1 to 400 letters, digits, dots, colons, hyphens and underscores")
    return text


def field_name(text: str) -> str:
    """The name of a header field, in lower case."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("the name of a header field, such as X-Real-IP")
    return text.lower()


def listen_address(text: str) -> str:
    """The IP address to listen on; Granian takes no names, so `localhost` is the one name that is known."""
    if text.lower() == "localhost":
        return "127.0.0.1"
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    try:
        return str(ipaddress.ip_address("" if "%" in bare else bare))
    except ValueError:
        raise ValueError("an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost") from None


def network(text: str) -> str:
    """A network such as `10.0.0.0/8`; one address is the network of itself."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("networks such as 10.0.0.0/8 or 192.0.2.1, without bits set behind the prefix") from None


def host_name(text: str) -> str:
    """A DNS name (in ASCII, lower case) or an IP address."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        name = text.lower() if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("a host name that can be written as DNS labels") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("a host name of letters, digits, hyphens and dots, or an IP address")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("an IPv4 address of four decimal numbers, or a host name that does not end in a number")
    return name


def via(text: str) -> str:
    """The pseudonym that this hop gives itself in `Via`."""
    if not _VIA.fullmatch(text):
        raise ValueError("a name for this relay without spaces, such as relaygate or gw.example.com:8000")
    return text


# Fields that tell of the connection, the framing or the target: a credential in one of them would break the request.
_NO_CREDENTIAL = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


def credential_field(text: str) -> str:
    """Where a credential goes: the name of a header field, in lower case, or `?name` of a query parameter."""
    if text.startswith("?"):
        if not _QUERY_NAME.fullmatch(text):
            raise ValueError("? and the name of a query parameter, such as ?key")
        return text
    if not _TOKEN.fullmatch(text) or text.lower() in _NO_CREDENTIAL:
        raise ValueError("the name of a header field, such as x-api-key, or ?name of a query parameter")
    return text.lower()


def group_id(text: str) -> str:
    """The id of a group of the key pool."""
    if not _GROUP.fullmatch(text):
        raise ValueError("1 to 64 letters, digits, dots, hyphens and underscores")
    return text


def model_pattern(text: str) -> str:
    """The name of a model, or how names begin, with `*` behind it."""
    if not text or len(text) > 256 or not text.isprintable() or "*" in text[:-1]:
        raise ValueError("the name of a model, such as gpt-4o, or how names begin with * behind it, such as gpt-4o*")
    return text


def price(usd: float) -> float:
    """US dollars of nine decimals at most, which are a whole number of nano-USD."""
    decimals = Decimal(repr(usd)).as_tuple().exponent
    if isinstance(decimals, int) and decimals < -PRICE_DECIMALS_MAX:
        raise ValueError(f"a number of {PRICE_DECIMALS_MAX} decimals at most")
    return usd


def version(text: str) -> str:
    """What somebody calls a list of his own."""
    if len(text) > 64 or not text.isprintable():
        raise ValueError("up to 64 printable characters")
    return text


def secret(text: str) -> str:
    """What goes into a header field as it is. It is never repeated in a message."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("ASCII text without spaces and control characters")
    return text


def balance_url(text: str) -> str:
    """`http(s)://host[:port][/path][?query]` as it was written; `{key}` may stand in path and query."""
    if not text.isprintable() or not text.isascii() or any(char in text for char in ' "#<>\\^`|'):
        raise ValueError("a URL in ASCII without spaces, quotes and a fragment")
    whole, _, query = text.partition("?")
    scheme, _, rest = whole.partition("://")
    netloc, slash, path = rest.partition("/")
    target(f"{scheme}://{netloc}{slash}{path.replace(KEY, 'key')}")
    if any(brace in query.replace(KEY, "") for brace in "{}"):
        raise ValueError("a URL without braces, but for {key}")
    return text


def balance_headers(fields: dict[str, str]) -> dict[str, str]:
    """Header fields of a balance query, names in lower case. Their values are not repeated in a message."""
    for name, value in fields.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _NO_CREDENTIAL:
            raise ValueError("names of header fields that do not tell of the connection, the length or the host")
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise ValueError("values in ASCII without control characters and without spaces around them")
    return {name.lower(): value for name, value in fields.items()}


def pointer(text: str) -> str:
    """A JSON pointer (RFC 6901), such as `/usage/standard/totalAllowance`."""
    if not text.isprintable() or not _POINTER.fullmatch(text):
        raise ValueError("a JSON pointer, such as /data/used")
    return text


def file_name(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("the name of a file")
    return text


def _path(text: str, expected: str) -> str:
    """`text`, which is empty or starts with `/`, if it has neither empty, dot nor badly encoded segments."""
    for segment in text.split("/")[1:]:
        plain = segment.lower().replace("%2e", ".")
        if plain in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise ValueError(expected)
    return text


def _host_of_url(netloc: str) -> str:
    if netloc.startswith("["):
        address, bracket, _ = netloc[1:].partition("]")
        try:
            return f"[{ipaddress.IPv6Address(address if bracket and '%' not in address else '')}]"
        except ValueError:
            raise ValueError("a URL with an IPv6 address in brackets, without a zone") from None
    host = netloc.partition(":")[0]
    if not host:
        raise ValueError("a URL with a host")
    return host_name(host)


def _port_of_url(netloc: str, scheme: str) -> str:
    rest = netloc.rpartition("]")[2] if netloc.startswith("[") else netloc[len(netloc.partition(":")[0]) :]
    if rest in ("", ":"):
        return ""
    port = int(rest[1:]) if _PORT.fullmatch(rest) else 0
    if not 1 <= port <= 65535:
        raise ValueError("a URL with a port from 1 to 65535")
    return "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
