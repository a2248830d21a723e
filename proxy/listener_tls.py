"""The listener's certificate, key and authorities, read once and kept in memory.

Granian's workers take names of files, and read them when they start. These names lead to what the parent has read and
checked, whatever lies on the disk by now, so a worker that is replaced after a crash starts with what the others have.
"""

import os
from pathlib import Path
from typing import Any

from granian.constants import SSLProtocols

from proxy.config import ConfigError, ListenerTls
from proxy.sources import tls_files

WHERE = "the listener's certificate"


class LoadedTls:
    """What the files held. Two that are equal make no difference to a client."""

    def __init__(self, tls: ListenerTls) -> None:
        """Reads and checks the files. Raises ConfigError."""
        self._contents = [_read(file) for file in (tls.certificate, tls.key, tls.client_ca) if file is not None]
        self._files = [_in_memory(content) for content in self._contents]
        certificate, key, *authorities = (f"/proc/self/fd/{file}" for file in self._files)
        self._names = certificate, key, next(iter(authorities), None)
        try:
            tls_files.check_pair(WHERE, "tls", certificate, key)
            for file in authorities:
                tls_files.check_ca(WHERE, "tls.client_ca", file)
        except ConfigError:
            self.close()
            raise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoadedTls) and self._contents == other._contents

    __hash__ = None  # type: ignore[assignment]

    @property
    def context(self) -> tuple[Any, ...]:
        """As Granian hands it to its workers, which are forked and so have the same descriptors."""
        certificate, key, client_ca = self._names
        return (True, certificate, key, None, str(SSLProtocols.tls12), client_ca, [], client_ca is not None)

    def close(self) -> None:
        """Forgets the files; workers that have started do not need them."""
        for file in self._files:
            os.close(file)
        self._files.clear()


NO_TLS: tuple[Any, ...] = (False, None, None, None, str(SSLProtocols.tls12), None, [], False)


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(WHERE, file, error.strerror or str(error)) from None


def _in_memory(content: bytes) -> int:
    file = os.memfd_create("relaygate-tls")
    with open(file, "wb", closefd=False) as opened:
        opened.write(content)
    return file
