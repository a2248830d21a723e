from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Config(_message.Message):
    __slots__ = ("server", "ssl", "backends", "routing", "grpc", "upstreams")
    class UpstreamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Struct
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
    SERVER_FIELD_NUMBER: _ClassVar[int]
    SSL_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    GRPC_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    server: Server
    ssl: Ssl
    backends: Backends
    routing: Routing
    grpc: Grpc
    upstreams: _containers.MessageMap[str, _struct_pb2.Struct]
    def __init__(self, server: _Optional[_Union[Server, _Mapping]] = ..., ssl: _Optional[_Union[Ssl, _Mapping]] = ..., backends: _Optional[_Union[Backends, _Mapping]] = ..., routing: _Optional[_Union[Routing, _Mapping]] = ..., grpc: _Optional[_Union[Grpc, _Mapping]] = ..., upstreams: _Optional[_Mapping[str, _struct_pb2.Struct]] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("host", "port", "read_timeout", "write_timeout", "max_conn", "real_ip_header", "trusted_proxies")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    READ_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    WRITE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_CONN_FIELD_NUMBER: _ClassVar[int]
    REAL_IP_HEADER_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_PROXIES_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    read_timeout: str
    write_timeout: str
    max_conn: int
    real_ip_header: str
    trusted_proxies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ..., read_timeout: _Optional[str] = ..., write_timeout: _Optional[str] = ..., max_conn: _Optional[int] = ..., real_ip_header: _Optional[str] = ..., trusted_proxies: _Optional[_Iterable[str]] = ...) -> None: ...

class Ssl(_message.Message):
    __slots__ = ("enabled", "cert_file", "key_file")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    CERT_FILE_FIELD_NUMBER: _ClassVar[int]
    KEY_FILE_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    cert_file: str
    key_file: str
    def __init__(self, enabled: _Optional[bool] = ..., cert_file: _Optional[str] = ..., key_file: _Optional[str] = ...) -> None: ...

class Grpc(_message.Message):
    __slots__ = ("enabled", "host", "port")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    host: str
    port: int
    def __init__(self, enabled: _Optional[bool] = ..., host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Backends(_message.Message):
    __slots__ = ("upstreams",)
    class UpstreamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BackendList
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BackendList, _Mapping]] = ...) -> None: ...
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    upstreams: _containers.MessageMap[str, BackendList]
    def __init__(self, upstreams: _Optional[_Mapping[str, BackendList]] = ...) -> None: ...

class BackendList(_message.Message):
    __slots__ = ("backends",)
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    backends: _containers.RepeatedCompositeFieldContainer[Backend]
    def __init__(self, backends: _Optional[_Iterable[_Union[Backend, _Mapping]]] = ...) -> None: ...

class Backend(_message.Message):
    __slots__ = ("id", "name", "host", "port", "weight", "scheme", "active", "max_conn", "health_check", "draining", "priority", "health")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONN_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    host: str
    port: int
    weight: int
    scheme: str
    active: bool
    max_conn: int
    health_check: HealthCheck
    draining: bool
    priority: int
    health: Health
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., weight: _Optional[int] = ..., scheme: _Optional[str] = ..., active: _Optional[bool] = ..., max_conn: _Optional[int] = ..., health_check: _Optional[_Union[HealthCheck, _Mapping]] = ..., draining: _Optional[bool] = ..., priority: _Optional[int] = ..., health: _Optional[_Union[Health, _Mapping]] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("healthy", "since", "checked", "reason")
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    healthy: bool
    since: int
    checked: int
    reason: str
    def __init__(self, healthy: _Optional[bool] = ..., since: _Optional[int] = ..., checked: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class HealthCheck(_message.Message):
    __slots__ = ("path", "interval", "timeout", "failures", "successes", "statuses", "body")
    PATH_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    path: str
    interval: str
    timeout: str
    failures: int
    successes: int
    statuses: _containers.RepeatedScalarFieldContainer[int]
    body: str
    def __init__(self, path: _Optional[str] = ..., interval: _Optional[str] = ..., timeout: _Optional[str] = ..., failures: _Optional[int] = ..., successes: _Optional[int] = ..., statuses: _Optional[_Iterable[int]] = ..., body: _Optional[str] = ...) -> None: ...

class Routing(_message.Message):
    __slots__ = ("routes",)
    class RoutesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Route
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Route, _Mapping]] = ...) -> None: ...
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.MessageMap[str, Route]
    def __init__(self, routes: _Optional[_Mapping[str, Route]] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("path", "upstream", "load_balancer", "protocols", "options")
    PATH_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    path: str
    upstream: str
    load_balancer: str
    protocols: Protocols
    options: _struct_pb2.Struct
    def __init__(self, path: _Optional[str] = ..., upstream: _Optional[str] = ..., load_balancer: _Optional[str] = ..., protocols: _Optional[_Union[Protocols, _Mapping]] = ..., options: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Protocols(_message.Message):
    __slots__ = ("websocket", "sse")
    WEBSOCKET_FIELD_NUMBER: _ClassVar[int]
    SSE_FIELD_NUMBER: _ClassVar[int]
    websocket: str
    sse: str
    def __init__(self, websocket: _Optional[str] = ..., sse: _Optional[str] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("config", "version")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    config: Config
    version: int
    def __init__(self, config: _Optional[_Union[Config, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class UpdateConfigRequest(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: Config
    def __init__(self, config: _Optional[_Union[Config, _Mapping]] = ...) -> None: ...

class UpdateConfigResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class ReloadSSLRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadSSLResponse(_message.Message):
    __slots__ = ("message", "workers")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    message: str
    workers: int
    def __init__(self, message: _Optional[str] = ..., workers: _Optional[int] = ...) -> None: ...

class GetBackendsRequest(_message.Message):
    __slots__ = ("upstream",)
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    def __init__(self, upstream: _Optional[str] = ...) -> None: ...

class GetBackendsResponse(_message.Message):
    __slots__ = ("backends",)
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    backends: Backends
    def __init__(self, backends: _Optional[_Union[Backends, _Mapping]] = ...) -> None: ...

class AddBackendRequest(_message.Message):
    __slots__ = ("upstream", "backend")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend: Backend
    def __init__(self, upstream: _Optional[str] = ..., backend: _Optional[_Union[Backend, _Mapping]] = ...) -> None: ...

class AddBackendResponse(_message.Message):
    __slots__ = ("backend",)
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    backend: Backend
    def __init__(self, backend: _Optional[_Union[Backend, _Mapping]] = ...) -> None: ...

class RemoveBackendRequest(_message.Message):
    __slots__ = ("upstream", "backend_id")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_ID_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend_id: str
    def __init__(self, upstream: _Optional[str] = ..., backend_id: _Optional[str] = ...) -> None: ...

class RemoveBackendResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UpdateBackendRequest(_message.Message):
    __slots__ = ("upstream", "backend")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend: Backend
    def __init__(self, upstream: _Optional[str] = ..., backend: _Optional[_Union[Backend, _Mapping]] = ...) -> None: ...

class UpdateBackendResponse(_message.Message):
    __slots__ = ("backend",)
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    backend: Backend
    def __init__(self, backend: _Optional[_Union[Backend, _Mapping]] = ...) -> None: ...

class DisconnectBackendRequest(_message.Message):
    __slots__ = ("upstream", "backend_id")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_ID_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend_id: str
    def __init__(self, upstream: _Optional[str] = ..., backend_id: _Optional[str] = ...) -> None: ...

class DisconnectBackendResponse(_message.Message):
    __slots__ = ("backend",)
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    backend: Backend
    def __init__(self, backend: _Optional[_Union[Backend, _Mapping]] = ...) -> None: ...

class GetServerStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerStatsResponse(_message.Message):
    __slots__ = ("version", "configuration", "uptime_s", "upstreams", "backends", "requests", "errors", "performance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_FIELD_NUMBER: _ClassVar[int]
    version: str
    configuration: int
    uptime_s: float
    upstreams: int
    backends: int
    requests: int
    errors: int
    performance: ServerPerformance
    def __init__(self, version: _Optional[str] = ..., configuration: _Optional[int] = ..., uptime_s: _Optional[float] = ..., upstreams: _Optional[int] = ..., backends: _Optional[int] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., performance: _Optional[_Union[ServerPerformance, _Mapping]] = ...) -> None: ...

class ServerPerformance(_message.Message):
    __slots__ = ("requests_per_sec", "avg_response_time_ms", "p50_response_time_ms", "p95_response_time_ms", "p99_response_time_ms", "error_rate", "memory_usage_mb", "in_flight", "workers")
    REQUESTS_PER_SEC_FIELD_NUMBER: _ClassVar[int]
    AVG_RESPONSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    P50_RESPONSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    P95_RESPONSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    P99_RESPONSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_MB_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    requests_per_sec: float
    avg_response_time_ms: float
    p50_response_time_ms: float
    p95_response_time_ms: float
    p99_response_time_ms: float
    error_rate: float
    memory_usage_mb: float
    in_flight: int
    workers: int
    def __init__(self, requests_per_sec: _Optional[float] = ..., avg_response_time_ms: _Optional[float] = ..., p50_response_time_ms: _Optional[float] = ..., p95_response_time_ms: _Optional[float] = ..., p99_response_time_ms: _Optional[float] = ..., error_rate: _Optional[float] = ..., memory_usage_mb: _Optional[float] = ..., in_flight: _Optional[int] = ..., workers: _Optional[int] = ...) -> None: ...

class GetBackendStatsRequest(_message.Message):
    __slots__ = ("upstream", "backend_id")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_ID_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend_id: str
    def __init__(self, upstream: _Optional[str] = ..., backend_id: _Optional[str] = ...) -> None: ...

class GetBackendStatsResponse(_message.Message):
    __slots__ = ("backends",)
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    backends: _containers.RepeatedCompositeFieldContainer[BackendStats]
    def __init__(self, backends: _Optional[_Iterable[_Union[BackendStats, _Mapping]]] = ...) -> None: ...

class BackendStats(_message.Message):
    __slots__ = ("upstream", "backend_id", "name", "weight", "active", "draining", "health", "running", "performance", "requests", "errors", "outcomes", "last_at", "head", "upstream_duration")
    class OutcomesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_DURATION_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend_id: str
    name: str
    weight: int
    active: bool
    draining: bool
    health: Health
    running: int
    performance: Performance
    requests: int
    errors: int
    outcomes: _containers.ScalarMap[str, int]
    last_at: int
    head: Latency
    upstream_duration: Latency
    def __init__(self, upstream: _Optional[str] = ..., backend_id: _Optional[str] = ..., name: _Optional[str] = ..., weight: _Optional[int] = ..., active: _Optional[bool] = ..., draining: _Optional[bool] = ..., health: _Optional[_Union[Health, _Mapping]] = ..., running: _Optional[int] = ..., performance: _Optional[_Union[Performance, _Mapping]] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., outcomes: _Optional[_Mapping[str, int]] = ..., last_at: _Optional[int] = ..., head: _Optional[_Union[Latency, _Mapping]] = ..., upstream_duration: _Optional[_Union[Latency, _Mapping]] = ...) -> None: ...

class Latency(_message.Message):
    __slots__ = ("count", "mean_ms", "p50_ms", "p95_ms", "p99_ms")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_MS_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P95_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    def __init__(self, count: _Optional[int] = ..., mean_ms: _Optional[float] = ..., p50_ms: _Optional[float] = ..., p95_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ...) -> None: ...

class Performance(_message.Message):
    __slots__ = ("cpu_usage", "memory_usage", "load_avg_1", "reported_at")
    CPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_FIELD_NUMBER: _ClassVar[int]
    LOAD_AVG_1_FIELD_NUMBER: _ClassVar[int]
    REPORTED_AT_FIELD_NUMBER: _ClassVar[int]
    cpu_usage: float
    memory_usage: float
    load_avg_1: float
    reported_at: int
    def __init__(self, cpu_usage: _Optional[float] = ..., memory_usage: _Optional[float] = ..., load_avg_1: _Optional[float] = ..., reported_at: _Optional[int] = ...) -> None: ...

class ReportPerformanceRequest(_message.Message):
    __slots__ = ("upstream", "backend_id", "performance")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_ID_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    backend_id: str
    performance: Performance
    def __init__(self, upstream: _Optional[str] = ..., backend_id: _Optional[str] = ..., performance: _Optional[_Union[Performance, _Mapping]] = ...) -> None: ...

class ReportPerformanceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
