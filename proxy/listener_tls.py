"""The listener's certificate, key and authorities, read once and kept in memory.

Granian's workers take names of files, and read them when they start. These names lead to what the parent has read and
checked, whatever lies on the disk by now, so a worker that is replaced after a crash starts with what the others have.
"""

import hashlib
import logging
import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

from granian.constants import SSLProtocols

from proxy.config import ClientCertificates, ConfigError, ListenerTls, TlsVersion
from proxy.sources import tls_files

log = logging.getLogger("relaygate")

WHERE = "the listener's certificate"
PROTOCOLS = {TlsVersion.TLS_1_2: SSLProtocols.tls12, TlsVersion.TLS_1_3: SSLProtocols.tls13}
IN_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)

Stamp = tuple[int, int, int, int] | None
"""Tells one content of a file from another: its device and inode, which a link that leads elsewhere changes, when it
was written (ns) and its length. None: there is no such file."""


class LoadedTls:
    """What the files held, and on which terms clients are let in. Two that are equal make no difference to them."""

    def __init__(self, settings: ListenerTls) -> None:
        """Reads and checks the files. Raises ConfigError."""
        self.settings = settings
        self.stamps = stamps(settings)
        """Taken before the files were read: what is written meanwhile differs from them."""
        self._contents = [_read(file) for file in files(settings)]
        self._files = [_in_memory(content) for content in self._contents]
        certificate, key, *authorities = (f"/proc/self/fd/{file}" for file in self._files)
        self._names = certificate, key, next(iter(authorities), None)
        try:
            tls_files.check_pair(WHERE, "tls", certificate, key)
            for file in authorities:
                tls_files.check_ca(WHERE, "tls.client_ca", file)
            self.fingerprint = fingerprint(self._contents[0])
            """Of the certificate that clients are shown: SHA-256 in hexadecimal."""
        except ConfigError:
            self.close()
            raise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoadedTls) and self._contents == other._contents and self._terms == other._terms

    __hash__ = None  # type: ignore[assignment]

    @property
    def _terms(self) -> tuple[str, bool]:
        """The oldest version that is taken, and whether a client needs a certificate."""
        settings = self.settings
        required = settings.client_ca is not None and settings.client_certificates is ClientCertificates.REQUIRED
        return str(PROTOCOLS[settings.min_version]), required

    @property
    def context(self) -> tuple[Any, ...]:
        """As Granian hands it to its workers, which are forked and so have the same descriptors."""
        certificate, key, client_ca = self._names
        oldest, required = self._terms
        return (True, certificate, key, None, oldest, client_ca, [], required)

    def close(self) -> None:
        """Forgets the files; workers that have started do not need them."""
        for file in self._files:
            os.close(file)
        self._files.clear()


NO_TLS: tuple[Any, ...] = (False, None, None, None, str(SSLProtocols.tls12), None, [], False)


class Renewals:
    """Looks at the files that a listener's certificate was loaded from, for others in their place."""

    def __init__(self, loaded: LoadedTls) -> None:
        self._settings = loaded.settings
        self._known = self._seen = loaded.stamps
        self._told = False

    def look(self) -> LoadedTls | None:
        """Returns what has been written since, once: to be called each second, or so.

        Files have to be as they were at the look before, since whoever writes them writes one after the other, and a
        chain of which half is there looks whole. What cannot be used, such as a certificate whose key is still to
        come, is left alone until it has changed again, and told in one line until something could be used.
        """
        now = stamps(self._settings)
        settled, self._seen = now == self._seen, now
        if not settled or now == self._known:
            return None
        self._known = now
        try:
            renewed = LoadedTls(self._settings)
        except ConfigError as error:
            if not self._told:
                log.warning("certificate not reloaded, the one before stays in use: %s", error)
            self._told = True
            return None
        self._told = False
        return renewed


def files(settings: ListenerTls) -> list[str]:
    """Returns the names of the certificate's file, the key's, and that of authorities if there are any."""
    return [file for file in (settings.certificate, settings.key, settings.client_ca) if file is not None]


def stamps(settings: ListenerTls) -> list[Stamp]:
    """Returns what tells whether the files are still those that they were."""
    return [_stamp(file) for file in files(settings)]


def fingerprint(chain: bytes) -> str:
    """Returns the SHA-256, in hexadecimal, of the first certificate in PEM. Raises ConfigError where there is none.

    OpenSSL knows other names of one (`X509 CERTIFICATE`), which Granian takes for nothing.
    """
    found = IN_PEM.search(chain)
    if found is None:
        raise ConfigError(WHERE, "tls.certificate", "no -----BEGIN CERTIFICATE----- in it")
    return hashlib.sha256(b64decode(found[1])).hexdigest()


def _stamp(file: str) -> Stamp:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


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
