"""Are the certificates and keys that a configuration names there, readable, well-formed and pairs?

The only source that does I/O. OpenSSL itself is asked, so that what passes here loads in a worker too.
"""

import ssl

from proxy.config import ConfigError, UpstreamTls


def check_pair(where: str, key_path: str, certificate: str, key: str | None) -> None:
    """A certificate chain and its private key (or one file with both); ConfigError names the file at fault."""
    check_ca(where, f"{key_path}.certificate", certificate)
    if key is not None:
        _read(where, f"{key_path}.key", key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        problem = "the key of another certificate" if mismatch else "expected a private key in PEM without a password"
        raise ConfigError(where, f"{key_path}.key", f"{key or certificate}: {problem}") from None


def check_ca(where: str, key_path: str, file: str) -> None:
    """A file of one certificate or more; ConfigError says what is wrong with it."""
    _read(where, key_path, file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        raise ConfigError(where, key_path, f"{file}: no certificate in PEM") from None


def check_upstream(where: str, key_path: str, tls: UpstreamTls) -> None:
    """All files by which connections to an upstream are made; ConfigError names the one at fault."""
    if tls.ca is not None:
        check_ca(where, f"{key_path}.ca", tls.ca)
    if tls.certificate is not None:
        check_pair(where, key_path, tls.certificate, tls.key)
    elif tls.key is not None:
        raise ConfigError(where, key_path, "a key without its certificate")


def _read(where: str, key_path: str, file: str) -> None:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 -- any file name at all, also one that Path would normalise
            stream.read(1)
    except OSError as error:
        raise ConfigError(where, key_path, f"{file}: {error.strerror}") from None


def _no_password() -> str:
    """Without it OpenSSL asks the terminal, and a start-up hangs."""
    return ""
