"""A certificate authority for one test run, and everything that it has and has not signed, as PEM files."""

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its private key."""

    certificate: Path
    key: Path


class Certificates:
    """`good` is for 127.0.0.1 and localhost; the others each have one fault. `stranger_ca` has signed none of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self.ca = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))
        self.stranger_ca = directory / "stranger-ca.pem"
        trustme.CA().cert_pem.write_to_path(str(self.stranger_ca))
        self.good = self.issue("good", "127.0.0.1", "localhost", "::1")
        self.misnamed = self.issue("misnamed", "elsewhere.test")
        self.expired = self.issue("expired", "127.0.0.1", not_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        self.client = self.issue("client", "client.test")

    def issue(self, stem: str, *names: str, not_after: dt.datetime | None = None) -> Pair:
        issued = self._ca.issue_cert(*names, not_after=not_after)
        pair = Pair(self._directory / f"{stem}.pem", self._directory / f"{stem}.key")
        issued.private_key_pem.write_to_path(str(pair.key))
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return pair

    def client_tls(self, *protocols: str) -> ssl.SSLContext:
        """A client that trusts this CA; offers these ALPN protocols (http/1.1 if none are named)."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(list(protocols) or ["http/1.1"])
        return context
