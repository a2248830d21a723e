"""The published contract of the data plane: what a configuration is, in plain frozen structs.

`settings.py` makes a `Config` from command line, environment, `.env` and YAML; `snapshot.py` compiles it to its runtime
form. Nothing here does I/O, and nothing on the hot path reads these structs: they are parsed once, compiled, frozen.
Field names are the YAML's own; every unit stands at the end of a name (`_s` seconds, `_bytes_max` bytes). Bounds stand
in the types, so one annotation serves the check, its error message and the reader.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

# A year is longer than any stream lasts, and keeps infinities and overflowing timers out of the event loop.
YEAR_S = 31_536_000

Seconds = Annotated[float, msgspec.Meta(gt=0, le=YEAR_S)]
SecondsOrZero = Annotated[float, msgspec.Meta(ge=0, le=YEAR_S)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
BytesOrZero = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
HeadBytes = Annotated[int, msgspec.Meta(ge=1024, le=2**24)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Workers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Hours = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Days = Annotated[int, msgspec.Meta(ge=31, le=10_000)]


class ConfigError(Exception):
    """A setting that cannot be used. Its text is always one line: where it stands, which key, what is wrong.

    `relaygate` prints it after its own name and exits with status 2.
    """

    def __init__(self, *parts: str) -> None:
        text = ": ".join(part for part in parts if part)
        super().__init__("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))


class HttpVersions(StrEnum):
    """Versions of HTTP offered to clients.

    AUTO offers both where TLS lets the client choose (ALPN), and HTTP/1.1 in clear text. BOTH takes HTTP/2 by prior
    knowledge in clear text too; a connection then costs 12 KB more, and one that never sends a byte is not closed.
    """

    AUTO = "auto"
    BOTH = "both"
    HTTP1 = "1"
    HTTP2 = "2"


class Forwarded(StrEnum):
    """What is done with `Forwarded` and `X-Forwarded-*` (RFC 7239).

    OFF leaves the client's own headers untouched and adds none; APPEND adds this hop to them; REPLACE drops them first.
    """

    OFF = "off"
    APPEND = "append"
    REPLACE = "replace"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every struct here: immutable, built by keyword, and strict about unknown keys."""


class UpstreamTls(Struct, frozen=True, kw_only=True):
    """How an https target is verified. Files are PEM.

    Absent means the system's trust store and no client certificate.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: bool = True


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One path prefix and the target it is relayed to.

    `target` is `http(s)://host[:port][/base]`. A timeout of null never fires. `connect_timeout_s` covers name
    resolution, TCP and TLS; `head_timeout_s` runs from the sent request to the response head; `idle_timeout_s` is the
    longest silence within a response body. `max_connections` caps the connections of one worker to the target's origin,
    and a request waits `pool_wait_s` at most for a free one; a pooled connection is closed `idle_connection_s` after
    its last use.
    """

    target: str
    connect_timeout_s: Seconds | None = 10.0
    head_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    preserve_host: bool = False
    forwarded: Forwarded = Forwarded.OFF
    via: str | None = None
    body_bytes_max: BytesOrZero | None = None
    response_head_bytes_max: HeadBytes = 65536
    max_connections: Count = 1000
    pool_wait_s: SecondsOrZero = 5.0
    idle_connection_s: Seconds = 60.0
    websocket_message_bytes_max: Bytes = 16 * 1024 * 1024
    tls: UpstreamTls = UpstreamTls()


class ListenerTls(Struct, frozen=True, kw_only=True):
    """The listener's certificate chain and private key, and the CA of client certificates if they are wanted (PEM)."""

    certificate: str
    key: str
    client_ca: str | None = None


class Server(Struct, frozen=True, kw_only=True):
    """The listener and its limits.

    `tracing` is the OpenTelemetry collector that gets a span a request, `http(s)://host[:port][/base]` (null: none).
    `health_prefix` + `/healthz` and `/readyz` are answered by the relay itself (null: not at all). `header_timeout_s`
    also ends idle keep-alive connections. `body_bytes_max` bounds request bodies of routes that set no bound of their
    own. Unless `allow_private_targets`, no target may be or resolve to an address that is not public. `statistics`:
    whether requests are counted, where there is a Redis to tell. `stats_path` answers with the figures of all workers
    in JSON (null: nothing does).
    """

    host: str = "127.0.0.1"
    port: Port = 8000
    workers: Workers = 1
    http: HttpVersions = HttpVersions.AUTO
    max_connections: Count = 10_000
    drain_timeout_s: SecondsOrZero = 30.0
    header_timeout_s: Seconds = 30.0
    body_timeout_s: Seconds | None = None
    body_bytes_max: BytesOrZero | None = None
    health_prefix: str | None = ""
    allow_private_targets: bool = False
    tracing: str | None = None
    access_log: bool = False
    statistics: bool = True
    stats_path: str | None = None
    log_level: LogLevel = LogLevel.INFO


class Redis(Struct, frozen=True, kw_only=True):
    """Where the hot shared state lies.

    Without a URL, `relaygate serve` starts a private Redis in the data directory, and `relaygate proxy` shares nothing.
    """

    url: str | None = None


class Database(Struct, frozen=True, kw_only=True):
    """Where lies what must survive. Without a URL: an SQLite file in the data directory."""

    url: str | None = None


class Admin(Struct, frozen=True, kw_only=True):
    """The control plane's own listener. Without a token, one is made at the first start, and printed once.

    `trusted_proxies` are networks (`10.0.0.0/8`) of proxies in front of it: from them, and only from them,
    `X-Forwarded-For` is believed.
    """

    host: str = "127.0.0.1"
    port: Port = 8001
    token: str | None = None
    trusted_proxies: tuple[str, ...] = ()


class Retention(Struct, frozen=True, kw_only=True):
    """How long the control plane keeps what it adds up: statistics by minute, by hour and by day. Totals stay for ever.

    `versions`: how many of the configuration, the newest first.
    """

    minute_rows_hours: Hours = 48
    hour_rows_days: Days = 90
    day_rows_days: Days = 800
    versions: Count = 1000


class Config(Struct, frozen=True, kw_only=True):
    """Everything a process of the relay needs. `routes` maps a prefix (`/openai`) to its route."""

    server: Server = Server()
    admin: Admin = Admin()
    tls: ListenerTls | None = None
    redis: Redis = Redis()
    database: Database = Database()
    retention: Retention = Retention()
    data_dir: str = "data"
    routes: dict[str, Route] = {}
