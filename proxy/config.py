"""The published contract of the data plane: what a configuration is, in plain frozen structs.

`settings.py` makes a `Config` from command line, environment, `.env` and YAML; `snapshot.py` compiles it to its runtime
form. Nothing here does I/O, and nothing on the hot path reads these structs: they are parsed once, compiled, frozen.
Field names are the YAML's own; every unit stands at the end of a name (`_s` seconds, `_bytes_max` bytes). Bounds stand
in the types, so one annotation serves the check, its error message and the reader.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

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
Tokens = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
Usd = Annotated[float, msgspec.Meta(ge=0, le=100_000)]


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


class CredentialSource(StrEnum):
    """Where the credential of a route's requests comes from.

    CLIENT passes the client's own on, as it came; with every other source the client's never reaches the upstream.
    FIXED is `credentials.api_key`, POOL a key of the key pool, OAUTH the access token that the control plane refreshes.
    AUTO is the first of these that there is: fixed, pool, OAuth, the client's own.
    """

    CLIENT = "client"
    FIXED = "fixed"
    POOL = "pool"
    OAUTH = "oauth"
    AUTO = "auto"


class Access(StrEnum):
    """Who may use a route: anybody, or who shows an access token (`phases/admit.py`)."""

    PUBLIC = "public"
    TOKEN = "token"  # noqa: S105 - a word of the settings


class OnClientGone(StrEnum):
    """What becomes of an upstream's answer whose client has left.

    ABORT closes the connection, so that the upstream may stop working. DRAIN reads on to the end, for what it says was
    used.
    """

    ABORT = "abort"
    DRAIN = "drain"


class Dialect(StrEnum):
    """Whose API a target speaks: where a request names its model, how it is given a credential, what errors mean."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    GENERIC = "generic"


class Algorithm(StrEnum):
    """How a credential is chosen among those of a tier (`rules/selection.py`)."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_USED = "least-used"
    WEIGHTED_SCORE = "weighted-score"
    LEAST_TOKEN_USED = "least-token-used"  # noqa: S105 - the name of an algorithm
    MAX_REMAINING = "max-remaining"
    WEIGHTED_USAGE = "weighted-usage"
    QUOTA_AWARE = "quota-aware"
    TIME_WINDOW = "time-window"
    CACHE_AFFINITY = "cache-affinity"


class Balancer(StrEnum):
    """How a backend of an upstream is chosen (`rules/balancing.py`)."""

    IP_HASH = "ip_hash"
    LEAST_CONNECTIONS = "least_connections"
    LEAST_CONNECTIONS_WEIGHT = "least_connections_weight"
    WEIGHT = "weight"
    PERFORMANCE = "performance_least_connections_weight"
    LEAST_LATENCY = "least_latency"


class TlsVersion(StrEnum):
    """The oldest version of TLS that a listener takes."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class ClientCertificates(StrEnum):
    """Whether a client without a certificate is served where a listener has authorities for them.

    One that is shown has to be theirs either way. OPTIONAL is for the time in which clients are given theirs: nobody
    behind the listener is told who has one.
    """

    REQUIRED = "required"
    OPTIONAL = "optional"


class BalancePreset(StrEnum):
    """Providers whose balance queries are known (`admin/rules/balances.py`)."""

    FACTORY = "factory"


class BalanceMethod(StrEnum):
    GET = "GET"
    POST = "POST"


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


class HealthCheck(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the control plane asks a backend whether it is well: with a GET of `path` every `interval_s`, a tenth more or
    less.

    An answer within `timeout_s` is good if its status is one of `statuses` (empty: 200 to 399) and, where `body` is
    given, that text stands in the first 64 KB of its body. `failures` in a row make the backend unhealthy, `successes`
    in a row healthy again.
    """

    path: str = "/health"
    interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 30.0
    timeout_s: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = 5.0
    failures: Count = 3
    successes: Count = 1
    statuses: tuple[Status, ...] = ()
    body: str | None = None


class Ejection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a worker leaves a backend alone that keeps failing for its own requests.

    After `failures` in a row (a connection that is not made, an answer that does not come, a 5xx) for `ejection_s`,
    and twice as long each time in a row, up to `ejection_max_s`; null: never. No more than `share_max` of an upstream's
    backends are left alone at once.
    """

    failures: Count | None = 5
    ejection_s: Seconds = 10.0
    ejection_max_s: Seconds = 300.0
    share_max: Share = 0.5


class Protocols(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Balancers for requests that open a WebSocket or ask for an event stream (`Accept: text/event-stream`).

    Null: as all others.
    """

    websocket: Balancer | None = None
    sse: Balancer | None = None


class Backend(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One server of an upstream: `http(s)://host[:port]`.

    An empty `id` becomes `{upstream}-{host}-{port}`. `max_connections` bounds the requests that it has at once (0 or
    less: nothing does). One that is not `active` gets no requests, and one that is `draining` no new ones. Those of the
    lowest `priority` are used as long as one of them can be. `health_check` null: the upstream's.
    """

    url: str
    id: str = ""
    name: str = ""
    weight: Weight = 100
    max_connections: Annotated[int, msgspec.Meta(ge=-1_000_000, le=10_000_000)] = 1000
    active: bool = True
    draining: bool = False
    priority: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    health_check: HealthCheck | None = None


class Upstream(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Several backends that answer alike, and how one is chosen for a request.

    `balancer` and `protocols` hold where a route has none of its own. A request that a backend could not be reached
    for goes to another one, as long as there is one. One that was sent goes out again where its method is idempotent
    and no answer came, or one with a status of `retry_statuses`: `retry_max` times at most (0: no request goes to
    another backend), with a body of `retry_body_bytes_max` at most, and `retry_share` of a worker's requests at most.
    Where all backends have `max_connections`, `queue_max` requests wait for `queue_wait_s` in each worker. A backend
    that comes back gets its share over `slow_start_s`. `tls` is for https backends.
    """

    backends: tuple[Backend, ...] = ()
    balancer: Balancer = Balancer.LEAST_CONNECTIONS_WEIGHT
    protocols: Protocols = Protocols()
    health_check: HealthCheck | None = None
    ejection: Ejection = Ejection()
    retry_max: Annotated[int, msgspec.Meta(ge=0, le=20)] = 2
    retry_statuses: tuple[Annotated[int, msgspec.Meta(ge=500, le=599)], ...] = (502, 503, 504)
    retry_body_bytes_max: BytesOrZero = 1024 * 1024
    retry_share: Share = 0.2
    queue_max: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 1000
    queue_wait_s: SecondsOrZero = 5.0
    slow_start_s: SecondsOrZero = 0.0
    tls: UpstreamTls = UpstreamTls()


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One path prefix and the target it is relayed to.

    `target` is `http(s)://host[:port][/base]`. In its place stands the name of an `upstream` of several backends, with
    `base` as the path that goes before the rest; `balancer` and `protocols` null: the upstream's. A timeout of null
    never fires. `connect_timeout_s` covers name resolution, TCP and TLS; `head_timeout_s` runs from the sent request to
    the response head; `idle_timeout_s` is the longest silence within a response body. `max_connections` caps the
    connections of one worker to the target's origin, and a request waits `pool_wait_s` at most for a free one; a pooled
    connection is closed `idle_connection_s` after its last use. `credential_field` says how the upstream is given its
    credential: the name of a header field (`authorization` has `Bearer ` before it) or `?name` of a query parameter;
    null: as the dialect wants it. `dialect` null: by the target's host. `pool_groups` are the groups of the key pool
    that the route may use (empty: all). `access` null: `token` where `access.api_key` is set, else `public`.
    """

    target: str = ""
    upstream: str | None = None
    base: str = ""
    balancer: Balancer | None = None
    protocols: Protocols | None = None
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
    credential: CredentialSource = CredentialSource.CLIENT
    credential_field: str | None = None
    dialect: Dialect | None = None
    pool_groups: tuple[str, ...] = ()
    access: Access | None = None
    on_client_gone: OnClientGone = OnClientGone.ABORT


class ListenerTls(Struct, frozen=True, kw_only=True):
    """The listener's certificate chain and private key, and the CA of client certificates if they are wanted (PEM).

    Only with a `client_ca` do `client_certificates` say anything.
    """

    certificate: str
    key: str
    client_ca: str | None = None
    client_certificates: ClientCertificates = ClientCertificates.REQUIRED
    min_version: TlsVersion = TlsVersion.TLS_1_2


class Server(Struct, frozen=True, kw_only=True):
    """The listener and its limits.

    `tracing` is the OpenTelemetry collector that gets a span a request, `http(s)://host[:port][/base]` (null: none).
    `health_prefix` + `/healthz` and `/readyz` are answered by the relay itself (null: not at all). `header_timeout_s`
    also ends idle keep-alive connections. `body_bytes_max` bounds request bodies of routes that set no bound of their
    own. Unless `allow_private_targets`, no target may be or resolve to an address that is not public. `statistics`:
    whether requests are counted, where there is a Redis to tell. `stats_path` answers with the figures of all workers
    in JSON (null: nothing does). `trusted_proxies` are networks (`10.0.0.0/8`) of proxies in front: from them, and only
    from them, is believed whom a request comes from. They tell it in `real_ip_header` (`X-Real-IP`), or, where that is
    null, in `X-Forwarded-For`, or `Forwarded` where there is none.
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
    real_ip_header: str | None = None
    trusted_proxies: tuple[str, ...] = ()
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


class Grpc(Struct, frozen=True, kw_only=True):
    """The management service over gRPC, beside the admin API: off unless `enabled`. Files are PEM.

    Without a certificate it speaks clear text, which it does on loopback addresses only.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 9090
    certificate: str | None = None
    key: str | None = None


class AccessSettings(Struct, frozen=True, kw_only=True):
    """Who is let in, beside those whom the control plane has given access tokens.

    `api_key` is one token without quota, rate or end. An address that shows `wrong_tokens_max` wrong ones within a
    minute to one worker is refused for a while, but with a token that the worker knows. While Redis is away, each
    worker admits `outage_requests_max` requests of a token that says `on_store_outage: allow`.
    """

    api_key: str | None = None
    wrong_tokens_max: Count = 30
    outage_requests_max: Count = 100


class Retention(Struct, frozen=True, kw_only=True):
    """How long the control plane keeps what it adds up: statistics by minute, by hour and by day. Totals stay for ever.

    `versions`: how many of the configuration, the newest first.
    """

    minute_rows_hours: Hours = 48
    hour_rows_days: Days = 90
    day_rows_days: Days = 800
    versions: Count = 1000


class QuotaCleanup(Struct, frozen=True, kw_only=True):
    """When the control plane removes old rows of access tokens' ledgers, and how old they are then."""

    enabled: bool = True
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 180
    interval_hours: Hours = 24


class Credentials(Struct, frozen=True, kw_only=True):
    """What the relay itself presents to upstreams, beside the key pool. Secrets: never published, never shown.

    `api_key` is the fixed credential. `refresh_token` begins the OAuth chain; `auth_file` (null: `auth.json` in the
    data directory) is where its newest state lies, for other programs too. `token_url` is asked for access tokens, as
    `client_id` and, where there is one, for `organization_id`.
    """

    api_key: str | None = None
    refresh_token: str | None = None
    auth_file: str | None = None
    token_url: str = "https://api.workos.com/user_management/authenticate"  # noqa: S105 - a URL
    client_id: str | None = None
    organization_id: str | None = None


class PoolGroup(Struct, frozen=True, kw_only=True):
    """A set of credentials. Groups of lower priority numbers are used first."""

    name: str = ""
    priority: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100


class BalanceQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a provider is asked how much of its allowance a key has used: a preset, or a request and where its answer
    says what.

    It is for keys of `providers` (as lists of keys name them; empty: all, or those of the preset) in `pool_groups`
    (empty: all). `{key}` in the URL's path and query, in `headers` and in texts of the JSON `body` stands for the key.
    `used`, `total` and `remaining` are JSON pointers (RFC 6901) to numbers, which are multiplied by `scale` and
    rounded; of the three, `used` or `remaining` is there. `period_begin` and `period_end` are pointers to times:
    seconds or milliseconds since 1970, or dates of RFC 3339.
    """

    preset: BalancePreset | None = None
    providers: tuple[str, ...] = ()
    pool_groups: tuple[str, ...] = ()
    url: str | None = None
    method: BalanceMethod = BalanceMethod.GET
    headers: dict[str, str] = {}
    body: dict[str, Any] | None = None
    used: str | None = None
    total: str | None = None
    remaining: str | None = None
    period_begin: str | None = None
    period_end: str | None = None
    scale: Annotated[float, msgspec.Meta(gt=0, le=1_000_000_000)] = 1.0


class KeyPool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How credentials are chosen, banned and tried again. The same for all routes; the control plane may change it.

    `retry_*`: whether, how often and after which pause (a failure of the upstream's own; of a key's, at once) a request
    goes out again with another credential, within `retry_deadline_s` of its first attempt, on which statuses, and with
    which longest body; `retry_idempotent_only` keeps a POST that an upstream may have acted on (5xx, a cut connection)
    from going out twice. `ban_402` and `ban_401` ban at once; other failures that count, once `error_threshold` of them
    came in a row, each within `error_window_s` of the one before. A ban lasts as long as the upstream says, else
    `rate_limit_s`, `overload_s` or `ban_s` by its cause, twice as long each time in a row up to `ban_max_s`.
    `multi_tier` has groups used by priority: with `auto_fallback` from one to the next, with `strict_mode` only those
    of the first. `window_s` is the time-window algorithm's. `concurrent_limit` and `request_timeout_ms` are for tests
    of keys and for balance queries. Those are made every `balance_interval_s` (null: only when asked for); the first of
    `balance_queries`, by name, that is for a key is its query. `groups` by id; a credential of no group that is here is
    of `default`.
    """

    algorithm: Algorithm = Algorithm.ROUND_ROBIN
    retry_enabled: bool = True
    retry_max: Annotated[int, msgspec.Meta(ge=0, le=20)] = 3
    retry_delay_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 1000
    retry_deadline_s: Seconds = 60.0
    retry_statuses: tuple[Annotated[int, msgspec.Meta(ge=400, le=599)], ...] = (
        401,
        402,
        403,
        429,
        500,
        502,
        503,
        504,
        529,
    )
    retry_body_bytes_max: BytesOrZero = 1024 * 1024
    retry_idempotent_only: bool = False
    auto_ban_enabled: bool = True
    error_threshold: Count = 5
    error_window_s: Seconds = 60.0
    ban_402: bool = True
    ban_401: bool = False
    ban_s: Seconds = 3600.0
    ban_max_s: Seconds = 86_400.0
    rate_limit_s: Seconds = 30.0
    overload_s: Seconds = 5.0
    multi_tier: bool = False
    auto_fallback: bool = True
    strict_mode: bool = False
    window_s: Seconds = 3600.0
    concurrent_limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    request_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)] = 10_000
    balance_interval_s: Annotated[float, msgspec.Meta(ge=10, le=YEAR_S)] | None = 300.0
    balance_queries: dict[str, BalanceQuery] = {}
    groups: dict[str, PoolGroup] = {}


class ModelPrice(Struct, frozen=True, kw_only=True):
    """What tokens of a model cost, in US dollars per million, of nine decimals at most.

    `input` is what neither came from a cache nor was written to one; for that, null is the price of input, and for what
    is kept for an hour (`cache_write_1h`) that of `cache_write`.
    """

    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None


class Prices(Struct, frozen=True, kw_only=True):
    """The price of each model, by its name or by how names begin (`gpt-4o*`): a name first, then the longest beginning.

    `version` is the operator's own name of this list.
    """

    version: str = ""
    models: dict[str, ModelPrice] = {}


class Estimates(Struct, frozen=True, kw_only=True):
    """What a request is expected to take of a quota of tokens or money, where it does not tell by itself."""

    input_tokens: Tokens = 1000
    output_tokens: Tokens = 4096


class Config(Struct, frozen=True, kw_only=True):
    """Everything a process of the relay needs. `routes` maps a prefix (`/openai`) to its route, `upstreams` a name."""

    server: Server = Server()
    admin: Admin = Admin()
    tls: ListenerTls | None = None
    redis: Redis = Redis()
    database: Database = Database()
    retention: Retention = Retention()
    access: AccessSettings = AccessSettings()
    quota_cleanup: QuotaCleanup = QuotaCleanup()
    credentials: Credentials = Credentials()
    key_pool: KeyPool = KeyPool()
    prices: Prices = Prices()
    estimates: Estimates = Estimates()
    grpc: Grpc = Grpc()
    data_dir: str = "data"
    upstreams: dict[str, Upstream] = {}
    routes: dict[str, Route] = {}


NAMED_MAX = 5


def warnings_of(routes: Mapping[str, Route], upstreams: Mapping[str, Upstream], credentials: Credentials) -> list[str]:
    """Returns lines about what is no mistake in the settings, but may not be what somebody wants."""
    return [line for line in (lacks_api_key(routes, credentials), unverified(routes, upstreams)) if line]


def lacks_api_key(routes: Mapping[str, Route], credentials: Credentials) -> str:
    """Returns a line that names the routes which want the fixed credential where there is none; else nothing.

    It is no error: the key may be set at the next reload, and until then those requests are refused.
    """
    if credentials.api_key is not None:
        return ""
    wanting = sorted(prefix for prefix, route in routes.items() if route.credential is CredentialSource.FIXED)
    if not wanting:
        return ""
    which = first_of(wanting)
    return f"credentials.api_key is not set: requests of {which} (credential: fixed) are answered with 503"


def leads_to(route: Route) -> str:
    """Returns where a route leads, to be read: its target, or `upstream NAME` with its base behind."""
    return route.target if route.upstream is None else f"upstream {route.upstream}{route.base}"


def unverified(routes: Mapping[str, Route], upstreams: Mapping[str, Upstream]) -> str:
    """Returns a line that names the routes and upstreams whose certificates nobody checks; else nothing."""
    named = [f"upstream {name}" for name, upstream in sorted(upstreams.items()) if not upstream.tls.verify]
    named += sorted(prefix for prefix, route in routes.items() if not route.tls.verify)
    if not named:
        return ""
    return f"tls.verify is false: whoever is on the way can read and answer requests of {first_of(named)}"


def first_of(names: list[str]) -> str:
    """Returns the first few names, and how many more there are."""
    more = len(names) - NAMED_MAX
    named = ", ".join(names[:NAMED_MAX])
    return f"{named} and {more} more" if more > 0 else named
