"""Our cookie, read and written (RFC 6265bis). Pure."""

from collections.abc import Iterable

PLAIN_NAME = "relaygate"
# A browser takes a cookie of this name only over TLS, for this host alone and for all its paths.
SECURE_NAME = "__Host-relaygate"


def found(name: str, fields: Iterable[bytes]) -> str | None:
    """Returns the value of a cookie from all `Cookie` fields of a request (HTTP/2 may split them), None if absent."""
    for field in fields:
        for pair in field.decode("latin-1").split(";"):
            key, equals, value = pair.strip().partition("=")
            if equals and key == name:
                return value.strip('"')
    return None


def name_of(scheme: str) -> str:
    return SECURE_NAME if scheme == "https" else PLAIN_NAME


def kept(name: str, value: str, seconds: int) -> str:
    """Returns the `Set-Cookie` that has a browser keep a cookie for so long; 0 has it forgotten."""
    secure = "; Secure" if name == SECURE_NAME else ""
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
