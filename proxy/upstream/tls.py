"""What an https upstream must prove, and how its TLS sessions are used again.

Certificates are verified unless the route says otherwise. A session ticket that the upstream gave to one connection is
offered by the next (RFC 8446 section 2.2): the handshake then needs no certificate and about a third of the CPU.

To read the system's authorities takes 36 ms and a megabyte, so origins with the same settings share a context.
"""

import ssl
from typing import Any

from proxy.config import UpstreamTls


class SessionContext(ssl.SSLContext):
    """A client context that offers, in every handshake, the newest session it knows of the server that is asked for."""

    def __init__(self, _protocol: int) -> None:
        self._sessions: dict[str, ssl.SSLSession] = {}

    def remember(self, server_name: str, session: ssl.SSLSession | None) -> None:
        """Keeps the session of a handshake that asked for this name; without one, what is known stays."""
        if session is not None:
            self._sessions[server_name] = session

    def forget(self, server_name: str) -> None:
        self._sessions.pop(server_name, None)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        kwargs.setdefault("session", self._sessions.get(kwargs["server_hostname"]))
        return super().wrap_bio(*args, **kwargs)


def client_context(settings: UpstreamTls) -> SessionContext:
    """Returns a context for origins with these settings.

    Raises OSError or ssl.SSLError where a file cannot be read or is no PEM.
    """
    context = SessionContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile=settings.ca)
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate, settings.key)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
