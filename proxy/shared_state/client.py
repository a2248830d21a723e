"""A client for the Redis that a URL names, and whether that Redis will do.

| URL | what it is |
| --- | --- |
| `redis://[user:password@]host[:port][/db]` | one server |
| `rediss://…[?ca=FILE]` | the same over TLS, verified against the system's authorities or those of FILE (PEM) |
| `unix://[user:password@]/path[?db=N]` | one server on this machine |
| `redis+sentinel://[user:password@]host[:port],…/service[/db]` | the master that Sentinels name |
| `redis+cluster://[user:password@]host[:port],…` | a Redis Cluster |

What is reserved in a URL is percent-encoded in it. A password without a user is offered to the Sentinels too: one that
has no password takes any for its default user. No error here repeats a part of the URL but the name of a file, because
a password with a stray `/` or `@` can end up in each of them.
"""

import contextlib
import ssl
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode, ClusterPubSub
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from proxy.config import ConfigError
from proxy.sources.tls_files import check_ca

Client: TypeAlias = Redis | RedisCluster
"""What `connect` returns. It answers in bytes and must be closed with `aclose()`."""

DEADLINE_S = 0.25
"""For one call, with the making of a connection where none is idle: four round trips, or six with TLS and database."""

VERSION_MIN = (6, 2)
REDIS_PORT = 6379
SENTINEL_PORT = 26379
DATABASE_MAX = 2**31 - 1
CONNECTIONS_MAX = 100
"""To one server. More calls at once than this, each within its deadline, are a server that cannot keep up."""

IDLE_CHECK_S = 30
"""A connection that was idle for so long is asked with PING before a command is trusted to it."""

WHERE = "redis"


class Aof(StrEnum):
    """What `check` found of the append-only file, without which a restart of Redis loses the shared state."""

    ON = "on"
    TURNED_ON = "turned on"
    """It was off. The server's own configuration file still says so: at its next start it is off again."""
    OFF = "off"
    """And the server did not let it be turned on."""


class Found(NamedTuple):
    """A server's version (of several: the oldest) and whether all keep an append-only file."""

    version: str
    aof: Aof


def connect(url: str, *, deadline_s: float = DEADLINE_S) -> Client:
    """A client that has not connected yet. Connecting, and each wait for an answer, ends after `deadline_s`.

    It sends nothing twice: see the package. Raises ConfigError for a URL that cannot be used.
    """
    parts = _split(url)
    options = _options(parts, deadline_s)
    match parts.scheme:
        case "redis" | "rediss":
            return _server(parts, options)
        case "unix":
            return _unix_server(parts, options)
        case "redis+sentinel":
            return _sentinel_master(parts, options)
        case "redis+cluster":
            return _cluster(parts, options)
        case _:
            raise _wrong("the scheme must be redis, rediss, unix, redis+sentinel or redis+cluster")


async def check(client: Client) -> Found:
    """Sees to it that the server is new enough and, where it allows it, keeps an append-only file.

    Raises ConfigError if it is too old, and redis-py's errors where it does not answer.
    """
    targets: list[dict[str, Any]] = [{}]
    if isinstance(client, RedisCluster):
        await client.initialize()
        targets = [{"target_nodes": node} for node in client.get_primaries()]
    found = [await _check_server(client, target) for target in targets]
    worst = max(found, key=lambda each: list(Aof).index(each.aof))
    return Found(min((each.version for each in found), key=_numbers), worst.aof)


async def close_idle(client: Client) -> None:
    """Closes the connections that no call is using. A cluster's client does so by itself after an error."""
    if isinstance(client, Redis):
        with contextlib.suppress(RedisError, OSError):
            await client.connection_pool.disconnect(inuse_connections=False)


async def _check_server(client: Client, target: Mapping[str, Any]) -> Found:
    try:
        about: dict[str, Any] = await client.info(**target)
    except ResponseError as error:
        if "HELLO" in str(error):  # what a server before 6.0 says to the greeting of RESP3
            raise ConfigError(WHERE, "older than 6.0; 6.2 or newer is needed") from None
        raise
    version = str(about["redis_version"])  # Valkey gives the version of Redis that it agrees with
    if _numbers(version) < VERSION_MIN:
        raise ConfigError(WHERE, f"version {version}; 6.2 or newer is needed")
    if about["aof_enabled"]:
        return Found(version, Aof.ON)
    try:
        await client.config_set("appendonly", "yes", **target)
    except ResponseError:
        return Found(version, Aof.OFF)
    return Found(version, Aof.TURNED_ON)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong("it is no URL") from None
    if parts.fragment or any("@" in part for part in (parts.path, parts.query) if parts.scheme != "unix"):
        raise _wrong("a user or password with /, ?, # or @ must be percent-encoded")
    allowed = {"rediss": {"ca"}, "unix": {"db"}}.get(parts.scheme, set())
    if not {key for key, _ in _query(parts).items()} <= allowed:
        raise _wrong("its query may hold " + (" and ".join(sorted(allowed)) or "nothing") + " only")
    return parts


def _query(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query, keep_blank_values=True))


def _options(parts: SplitResult, deadline_s: float) -> dict[str, Any]:
    """What all kinds of connection are made with."""
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {
        "username": unquote(user) or None,
        "password": unquote(password) or None,
        "protocol": 3,
        "legacy_responses": False,  # one shape for each answer, whatever the protocol
        "socket_timeout": deadline_s,
        "socket_connect_timeout": deadline_s,
        "health_check_interval": IDLE_CHECK_S,
        "max_connections": CONNECTIONS_MAX,
        "retry": _never(),
        # Two round trips for each new connection, to tell the server the name of the library.
        "driver_info": None,
        # Left on, redis-py would use a connection again in which bytes of an earlier answer wait.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


def _server(parts: SplitResult, options: dict[str, Any]) -> Redis:
    [(host, port), *others] = _addresses(parts, REDIS_PORT)
    if others:
        raise _wrong("several servers need redis+sentinel or redis+cluster")
    options |= {"host": host, "port": port, "db": _database(parts.path.removeprefix("/")), "socket_keepalive": True}
    if parts.scheme == "rediss":
        return _with_pool(ConnectionPool(_VerifiedConnection, context=_tls(_query(parts).get("ca")), **options))
    return _with_pool(ConnectionPool(Connection, **options))


def _unix_server(parts: SplitResult, options: dict[str, Any]) -> Redis:
    path = unquote(parts.path)
    if not path.startswith("/") or parts.netloc.rpartition("@")[2]:
        raise _wrong("a unix URL needs an absolute path: unix:///run/redis.sock")
    options |= {"path": path, "db": _database(_query(parts).get("db", ""))}
    return _with_pool(ConnectionPool(UnixDomainSocketConnection, **options))


def _sentinel_master(parts: SplitResult, options: dict[str, Any]) -> Redis:
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service:
        raise _wrong("a Sentinel URL needs a service: redis+sentinel://host:26379/service")
    options |= {"db": _database(database), "socket_keepalive": True}
    own = {"username", "password", "max_connections"} if options["username"] else {"max_connections"}
    sentinels = _Sentinels(  # type: ignore[no-untyped-call]
        _addresses(parts, SENTINEL_PORT),
        sentinel_kwargs={key: value for key, value in options.items() if key not in own | {"db"}},
        **options,
    )
    client: Redis = sentinels.master_for(unquote(service), connection_pool_class=_MasterPool)
    return client


def _cluster(parts: SplitResult, options: dict[str, Any]) -> RedisCluster:
    if parts.path.strip("/"):
        raise _wrong("a cluster has no databases; its URL ends with the hosts")
    nodes = [ClusterNode(host, port) for host, port in _addresses(parts, REDIS_PORT)]
    return _Cluster(startup_nodes=nodes, socket_keepalive=True, **options)


def _with_pool(pool: ConnectionPool) -> Redis:
    client: Redis = Redis.from_pool(pool)
    return client


def _addresses(parts: SplitResult, port: int) -> list[tuple[str, int]]:
    """Hosts and ports, of which there is one at least."""
    found = []
    for each in parts.netloc.rpartition("@")[2].split(","):
        try:
            address = urlsplit(f"//{each}")
            host, own_port = address.hostname, address.port
        except ValueError:
            raise _wrong("a port must be a number up to 65535, and an IPv6 address stands in brackets") from None
        if not host or own_port == 0:
            raise _wrong("a host is missing, or a port is 0")
        found.append((host, own_port or port))
    return found


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= DATABASE_MAX):
        raise _wrong("the database must be a number")
    return int(text)


def _tls(ca: str | None) -> ssl.SSLContext:
    if ca is not None:
        check_ca(WHERE, "ca", ca)
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _wrong(problem: str) -> ConfigError:
    return ConfigError(WHERE, "url", problem)


class _VerifiedConnection(SSLConnection):
    """Uses one context for all connections: redis-py's own loads the authorities anew for each, the system's always."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


class _Sentinels(Sentinel):
    """Begins with another Sentinel after one that did not answer, which else would use up each deadline anew."""

    async def discover_master(self, service_name: str) -> Any:
        first = self.sentinels[0]
        try:
            return await super().discover_master(service_name)
        except BaseException:  # a deadline arrives as a cancellation
            if self.sentinels[0] is first:
                self.sentinels.append(self.sentinels.pop(0))
            raise


class _MasterPool(SentinelConnectionPool):
    """Closes the connections to the Sentinels with its own."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class _Cluster(RedisCluster):
    """Gives out subscriptions that need no command before them."""

    def pubsub(self, *args: Any, **options: Any) -> ClusterPubSub:
        return _ClusterPubSub(self, *args, **options)


class _ClusterPubSub(ClusterPubSub):
    """Learns the nodes first if need be. redis-py's own looks them up in a table that only other commands fill."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        await self.cluster.initialize()
        return await super().execute_command(*args, **options)
