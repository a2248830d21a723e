"""A database's URL, as operators write it, to the one that SQLAlchemy's asyncio drivers take. Pure.

Refusals are a ConfigError that never holds the URL: what is wrong in it may be a password.
"""

from enum import StrEnum

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from proxy.config import ConfigError
from proxy.sources.structs import nearest

KEY = "database.url"


class Kind(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"


# MariaDB is spoken to as MySQL; the driver is the same and SQLAlchemy finds out.
SCHEMES = {
    "sqlite": Kind.SQLITE,
    "sqlite+aiosqlite": Kind.SQLITE,
    "postgresql": Kind.POSTGRESQL,
    "postgres": Kind.POSTGRESQL,
    "postgresql+asyncpg": Kind.POSTGRESQL,
    "mysql": Kind.MYSQL,
    "mariadb": Kind.MYSQL,
    "mysql+asyncmy": Kind.MYSQL,
    "mariadb+asyncmy": Kind.MYSQL,
}
DRIVERS = {Kind.SQLITE: "sqlite+aiosqlite", Kind.POSTGRESQL: "postgresql+asyncpg", Kind.MYSQL: "mysql+asyncmy"}
# `sslmode` is what hosting platforms write for PostgreSQL; asyncpg calls it `ssl` and takes the same words.
OPTIONS = {
    Kind.SQLITE: (),
    Kind.POSTGRESQL: ("host", "prepared_statement_cache_size", "ssl", "sslmode"),
    Kind.MYSQL: ("charset", "ssl_ca", "ssl_cert", "ssl_check_hostname", "ssl_key", "unix_socket"),
}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def parse(text: str) -> tuple[Kind, URL]:
    """The kind of database and its URL with driver. Raises ConfigError."""
    scheme, separator, _ = text.partition("://")
    # `sqlite:path` and `sqlite+aiosqlite:path` are what is meant by them.
    if not separator and scheme.partition(":")[0] in ("sqlite", "sqlite+aiosqlite"):
        scheme, _, path = scheme.partition(":")
        text = f"{scheme}:///{path}"
    kind = SCHEMES.get(scheme)
    if kind is None:
        raise ConfigError(KEY, "expected a URL that starts with sqlite:///, postgresql://, mysql:// or mariadb://")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(KEY, f"not a URL of the form {kind}://user:password@host:port/database") from None
    _refuse_unknown_options(kind, url)
    url = url.set(drivername=DRIVERS[kind])
    return kind, _sqlite(url) if kind is Kind.SQLITE else _server(kind, url)


def place(kind: Kind, url: URL) -> str:
    """Where a database is, for messages: a file, or a host and its port. No user, no password."""
    if kind is Kind.SQLITE:
        return f"sqlite {url.database}"
    port = url.port or {Kind.POSTGRESQL: 5432, Kind.MYSQL: 3306}[kind]
    socket = url.query.get("host") or url.query.get("unix_socket")
    return f"{kind} at {socket or f'{url.host}:{port}'}"


def _refuse_unknown_options(kind: Kind, url: URL) -> None:
    for name, value in url.query.items():
        if name not in OPTIONS[kind]:
            known = OPTIONS[kind]
            hint = nearest(name, known) if known else "expected none"
            raise ConfigError(KEY, f"unknown option {name[:40]}, {hint}")
        if not isinstance(value, str):
            raise ConfigError(KEY, f"the option {name} is there twice")


def _sqlite(url: URL) -> URL:
    if url.host:
        raise ConfigError(KEY, "sqlite has no host, expected sqlite:///file or, for an absolute path, sqlite:////file")
    if not url.database or url.database == ":memory:":
        raise ConfigError(KEY, "expected the path of a file behind sqlite:///")
    return url


def _server(kind: Kind, url: URL) -> URL:
    if not url.host and not {"host", "unix_socket"} & url.query.keys():
        raise ConfigError(KEY, f"the host is missing, expected {kind}://user:password@host:port/database")
    if url.host and "@" in url.host:
        raise ConfigError(KEY, "an @ in the user name or the password must be written as %40")
    if not url.database or "/" in url.database:
        raise ConfigError(KEY, f"expected one name of a database behind the host, {kind}://user:password@host/database")
    if kind is Kind.MYSQL:
        return url.update_query_dict({"charset": "utf8mb4"})
    mode = url.query.get("sslmode") or url.query.get("ssl")
    if mode is None:
        return url
    if mode not in SSL_MODES:
        raise ConfigError(KEY, f"sslmode: expected one of {', '.join(SSL_MODES)}")
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": str(mode)})
