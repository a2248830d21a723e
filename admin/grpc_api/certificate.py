"""The certificate that the management service shows: files that may be replaced while it serves."""

import logging
from pathlib import Path
from typing import NamedTuple

import grpc

from proxy.config import ConfigError
from proxy.sources.tls_files import check_pair

log = logging.getLogger("relaygate")


class _Pair(NamedTuple):
    """The content of both files."""

    certificate: bytes
    key: bytes

    @property
    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)])


class Certificate:
    """A certificate chain and its key. The files are read at every handshake, of which a management service has few.

    What cannot be used changes nothing, and is told once: while one file is new and the other is not, the pair before
    is shown.
    """

    def __init__(self, certificate: str, key: str) -> None:
        """Raises ConfigError."""
        self._files = certificate, key
        check_pair("", "grpc", certificate, key)
        self._seen = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns what a server is given. TLS 1.2 is the oldest version that gRPC takes."""
        return grpc.dynamic_ssl_server_credentials(self._seen.configuration, self._renewed)  # type: ignore[arg-type]

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what is new; called for each handshake, in a thread of gRPC's."""
        try:
            found = self._read()
            if found == self._seen:
                return None
            self._seen = found
            check_pair("", "grpc", *self._files)
        except (OSError, ConfigError) as error:
            log.error("the certificate of the gRPC service is not loaded again: %s", error)  # noqa: TRY400 - a line
            return None
        return found.configuration

    def _read(self) -> _Pair:
        certificate, key = map(Path, self._files)
        return _Pair(certificate.read_bytes(), key.read_bytes())
