"""Each call, by a real client."""

import grpc
import pytest

from admin.grpc_api import management_pb2 as pb
from proxy.config import ConfigError
from tests.admin.grpc_api.service import Caller, Service
from tests.admin.management_memory import HEALTH, LATENCY


@pytest.mark.usefixtures("service")
def test_get_config(call: Caller) -> None:
    found = call("ConfigService", "GetConfig", pb.GetConfigRequest())
    assert found.version == 7
    config = found.config
    assert (config.server.port, config.server.read_timeout, list(config.server.trusted_proxies)) == (
        8000,
        "30s",
        ["10.0.0.0/8"],
    )
    assert not config.server.HasField("real_ip_header")
    one, two = config.backends.upstreams["default"].backends
    assert (one.id, one.health_check.timeout, list(one.health_check.statuses)) == ("one", "0.5s", [200, 204])
    assert not two.HasField("health_check")
    route = config.routing.routes["/"]
    assert (route.upstream, route.protocols.websocket) == ("default", "ip_hash")
    assert route.options["head_timeout_s"] == 12.5
    assert config.upstreams["default"]["queue_max"] == 10


def test_update_config(service: Service, call: Caller) -> None:
    config = pb.Config(backends=pb.Backends(upstreams={"new": pb.BackendList(backends=[pb.Backend(host="h", port=1)])}))
    assert call("ConfigService", "UpdateConfig", pb.UpdateConfigRequest(config=config)).version == 8
    assert service.management.updates == [{"backends": {"new": [{"host": "h", "port": 1}]}}]
    assert service.outcomes() == [("balancing.change", "backends", "done")]


def test_what_get_config_tells_may_be_sent_back(service: Service, call: Caller) -> None:
    config = call("ConfigService", "GetConfig", pb.GetConfigRequest()).config
    call("ConfigService", "UpdateConfig", pb.UpdateConfigRequest(config=config))
    (given,) = service.management.updates
    assert given["server"] == {
        "host": "127.0.0.1",
        "port": 8000,
        "read_timeout": "30s",
        "max_conn": 10_000,
        "trusted_proxies": ["10.0.0.0/8"],
    }
    assert given["ssl"] == {"enabled": False}
    assert given["routing"]["/"]["body_bytes_max"] == 1_000_000


def test_reload_ssl(service: Service, call: Caller) -> None:
    assert call("ConfigService", "ReloadSSL", pb.ReloadSSLRequest()).workers == 2
    assert service.outcomes() == [("tls.reload", "tls", "done")]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("upstream", ["default", None])
def test_get_backends(call: Caller, upstream: str | None) -> None:
    found = call("BackendService", "GetBackends", pb.GetBackendsRequest(upstream=upstream)).backends.upstreams
    assert list(found) == ["default"]
    one, two = found["default"].backends
    assert (one.id, one.weight, two.id, two.weight) == ("one", 100, "two", 50)
    assert one.health == pb.Health(**HEALTH)  # type: ignore[arg-type]


def test_add_backend(service: Service, call: Caller) -> None:
    backend = pb.Backend(id="three", host="127.0.0.1", port=8083, weight=50)
    added = call("BackendService", "AddBackend", pb.AddBackendRequest(upstream="other", backend=backend)).backend
    assert (added.id, added.weight, added.max_conn, added.active) == ("three", 50, 1000, True)
    assert [one["id"] for one in service.management.upstreams["other"]] == ["three"]
    assert service.management.actors == ["token"]
    assert service.outcomes() == [("backend.add", "other/three", "done")]


def test_update_backend_changes_what_is_set(service: Service, call: Caller) -> None:
    backend = pb.Backend(id="two", active=True, weight=200)
    changed = call("BackendService", "UpdateBackend", pb.UpdateBackendRequest(upstream="default", backend=backend))
    assert (changed.backend.weight, changed.backend.port) == (200, 8082)
    (action,) = service.memory.actions.actions
    assert (action.action, action.detail) == ("backend.change", {"fields": ["active", "id", "weight"]})


def test_disconnect_backend(service: Service, call: Caller) -> None:
    request = pb.DisconnectBackendRequest(upstream="default", backend_id="one")
    assert call("BackendService", "DisconnectBackend", request).backend.draining
    assert service.outcomes() == [("backend.disconnect", "default/one", "done")]


def test_remove_backend(service: Service, call: Caller) -> None:
    call("BackendService", "RemoveBackend", pb.RemoveBackendRequest(upstream="default", backend_id="one"))
    assert [one["id"] for one in service.management.upstreams["default"]] == ["two"]
    assert service.outcomes() == [("backend.remove", "default/one", "done")]


@pytest.mark.usefixtures("service")
def test_get_server_stats(call: Caller) -> None:
    found = call("MonitorService", "GetServerStats", pb.GetServerStatsRequest())
    assert (found.version, found.requests, found.performance.workers) == ("1.2.3", 2**40, 2)


@pytest.mark.usefixtures("service")
def test_get_backend_stats(call: Caller) -> None:
    every = call("MonitorService", "GetBackendStats", pb.GetBackendStatsRequest()).backends
    assert [one.backend_id for one in every] == ["one", "two"]
    request = pb.GetBackendStatsRequest(upstream="default", backend_id="two")
    (two,) = call("MonitorService", "GetBackendStats", request).backends
    assert (two.weight, two.running, two.HasField("running"), two.HasField("health")) == (50, 0, True, False)
    assert two.head == pb.Latency(**LATENCY)  # type: ignore[arg-type]
    assert two.outcomes == {"2xx": 2**40 - 1, "connect_refused": 1}


def test_report_performance(service: Service, call: Caller) -> None:
    performance = pb.Performance(cpu_usage=45.2, load_avg_1=0)
    request = pb.ReportPerformanceRequest(upstream="default", backend_id="one", performance=performance)
    call("MonitorService", "ReportPerformance", request)
    assert service.management.reports == [("default", "one", {"cpu_usage": 45.2, "load_avg_1": 0.0})]
    assert service.outcomes() == [], "backends say this every few seconds, and change nothing by it"


@pytest.mark.parametrize(
    ("method", "request_", "status", "action"),
    [
        (
            "RemoveBackend",
            pb.RemoveBackendRequest(upstream="no", backend_id="one"),
            grpc.StatusCode.NOT_FOUND,
            ("backend.remove", "no/one", "not_found"),
        ),
        (
            "UpdateBackend",
            pb.UpdateBackendRequest(upstream="default", backend=pb.Backend(id="no")),
            grpc.StatusCode.NOT_FOUND,
            ("backend.change", "default/no", "not_found"),
        ),
        (
            "AddBackend",
            pb.AddBackendRequest(upstream="default", backend=pb.Backend(id="one", host="h")),
            grpc.StatusCode.ALREADY_EXISTS,
            ("backend.add", "default/one", "duplicate"),
        ),
        (
            "AddBackend",
            pb.AddBackendRequest(upstream="default"),
            grpc.StatusCode.INVALID_ARGUMENT,
            ("backend.add", "default", "unusable"),
        ),
    ],
)
def test_what_is_refused_is_told_and_recorded(
    service: Service,
    call: Caller,
    method: str,
    request_: object,
    status: grpc.StatusCode,
    action: tuple[str, str, str],
) -> None:
    error = call.refused("BackendService", method, request_)
    assert error.code() is status
    assert error.details()
    assert service.outcomes() == [action]
    assert service.management.actors == []


def test_a_setting_that_cannot_be_used_is_told_with_its_text(service: Service, call: Caller) -> None:
    service.management.raised = ConfigError("routing./.upstream", "no upstream is called x, the nearest is y")
    error = call.refused("ConfigService", "UpdateConfig", pb.UpdateConfigRequest())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "routing./.upstream: no upstream is called x, the nearest is y"


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("service_", "method", "request_", "field"),
    [
        ("BackendService", "AddBackend", pb.AddBackendRequest(backend=pb.Backend(host="h")), "upstream"),
        ("BackendService", "UpdateBackend", pb.UpdateBackendRequest(), "upstream"),
        ("BackendService", "RemoveBackend", pb.RemoveBackendRequest(upstream="default"), "backend_id"),
        ("BackendService", "DisconnectBackend", pb.DisconnectBackendRequest(backend_id="one"), "upstream"),
        ("MonitorService", "ReportPerformance", pb.ReportPerformanceRequest(upstream="default"), "backend_id"),
    ],
)
def test_a_name_that_is_missing_is_told(call: Caller, service_: str, method: str, request_: object, field: str) -> None:
    error = call.refused(service_, method, request_)
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, f"{field}: missing")
