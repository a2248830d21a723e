"""Each call, by a real client."""

import grpc
import pytest

from admin.grpc_api import management_pb2 as pb
from proxy.config import Backend
from proxy.version import VERSION
from tests.admin.counted import NOW_S
from tests.admin.grpc_api.service import BACKENDS, ROUTE, UPSTREAM, Caller, Service

NOW_MS = int(NOW_S * 1000)


@pytest.mark.usefixtures("service")
def test_get_config(call: Caller) -> None:
    found = call("ConfigService", "GetConfig", pb.GetConfigRequest())
    assert found.version == 1
    config = found.config
    assert (config.server.port, config.server.read_timeout) == (8000, "30s")
    assert list(config.server.trusted_proxies) == ["10.0.0.0/8"]
    assert not config.server.HasField("real_ip_header")
    assert (config.ssl.enabled, config.ssl.cert_file, config.grpc.port) == (True, "live.pem", 9090)
    one, two = config.backends.upstreams["default"].backends
    assert (one.id, one.health_check.timeout, list(one.health_check.statuses)) == ("one", "0.5s", [200, 204])
    assert not two.HasField("health_check")
    route = config.routing.routes["/"]
    assert (route.upstream, route.load_balancer, route.protocols.websocket) == ("default", "weight", "ip_hash")
    assert route.options["head_timeout_s"] == 12.5
    assert config.upstreams["default"]["queue_max"] == 10


def test_update_config(service: Service, call: Caller) -> None:
    config = pb.Config(
        backends=pb.Backends(upstreams={"new": pb.BackendList(backends=[pb.Backend(id="a", host="h", port=1)])}),
        routing=pb.Routing(routes={"all": pb.Route(path="/new", upstream="new")}),
    )
    config.routing.routes["all"].options.update({"body_bytes_max": 10})
    assert call("ConfigService", "UpdateConfig", pb.UpdateConfigRequest(config=config)).version == 2
    assert {name: upstream.backends for name, upstream in service.upstreams.items()} == {
        "new": (Backend(url="http://h:1", id="a"),)
    }
    (route,) = service.memory.versions.stored.values()
    assert (route.prefix, route.route.body_bytes_max) == ("/new", 10)
    assert service.outcomes() == [("balancing.change", "backends, routing", "done")]


def test_what_get_config_tells_may_be_sent_back_and_changes_nothing(service: Service, call: Caller) -> None:
    config = call("ConfigService", "GetConfig", pb.GetConfigRequest()).config
    assert call("ConfigService", "UpdateConfig", pb.UpdateConfigRequest(config=config)).version == 1
    assert service.upstreams == {"default": UPSTREAM}
    assert service.memory.versions.stored["/"].route == ROUTE


def test_a_document_that_cannot_be_used_is_told_with_the_name_of_what_is_wrong(service: Service, call: Caller) -> None:
    config = pb.Config(routing=pb.Routing(routes={"all": pb.Route(upstream="defualt")}))
    error = call.refused("ConfigService", "UpdateConfig", pb.UpdateConfigRequest(config=config))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("routing.all.upstream: no upstream is called defualt")
    assert service.outcomes() == [("balancing.change", "routing", "unusable")]
    assert service.memory.versions.stored["/"].route == ROUTE


def test_reload_ssl(service: Service, call: Caller) -> None:
    assert call("ConfigService", "ReloadSSL", pb.ReloadSSLRequest()).workers == 2
    assert service.outcomes() == [("tls.reload", "tls", "done")]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("upstream", ["default", None])
def test_get_backends(call: Caller, upstream: str | None) -> None:
    found = call("BackendService", "GetBackends", pb.GetBackendsRequest(upstream=upstream)).backends.upstreams
    assert list(found) == ["default"]
    one, two = found["default"].backends
    assert (one.id, one.weight, two.id, two.weight, two.port) == ("one", 100, "two", 50, 8082)
    assert one.health == pb.Health(healthy=False, since=NOW_MS - 30_000, checked=NOW_MS, reason="connection refused")
    assert not two.HasField("health")


def test_add_backend(service: Service, call: Caller) -> None:
    backend = pb.Backend(id="three", host="127.0.0.1", port=8083, weight=50)
    added = call("BackendService", "AddBackend", pb.AddBackendRequest(upstream="other", backend=backend)).backend
    assert (added.id, added.weight, added.max_conn, added.active) == ("three", 50, 1000, True)
    assert service.ids("other") == ["three"]
    assert service.memory.versions.versions[-1].actor == "token"
    assert service.outcomes() == [("backend.add", "other/three", "done")]


def test_update_backend_changes_what_is_set(service: Service, call: Caller) -> None:
    backend = pb.Backend(id="two", active=True, weight=200)
    changed = call("BackendService", "UpdateBackend", pb.UpdateBackendRequest(upstream="default", backend=backend))
    assert (changed.backend.weight, changed.backend.port) == (200, 8082)
    assert service.upstreams["default"].backends[0] == BACKENDS[0]
    (action,) = service.memory.actions.actions
    assert (action.action, action.detail) == ("backend.change", {"fields": ["active", "id", "weight"]})


def test_disconnect_backend_and_undo_it(service: Service, call: Caller) -> None:
    request = pb.DisconnectBackendRequest(upstream="default", backend_id="one")
    assert call("BackendService", "DisconnectBackend", request).backend.draining
    assert service.upstreams["default"].backends[0].draining
    assert service.outcomes() == [("backend.disconnect", "default/one", "done")]
    undo = pb.UpdateBackendRequest(upstream="default", backend=pb.Backend(id="one", active=True))
    assert not call("BackendService", "UpdateBackend", undo).backend.draining
    assert service.upstreams["default"] == UPSTREAM


def test_remove_backend(service: Service, call: Caller) -> None:
    call("BackendService", "RemoveBackend", pb.RemoveBackendRequest(upstream="default", backend_id="one"))
    assert service.ids() == ["two"]
    assert service.outcomes() == [("backend.remove", "default/one", "done")]


@pytest.mark.usefixtures("service")
def test_get_server_stats(call: Caller) -> None:
    found = call("MonitorService", "GetServerStats", pb.GetServerStatsRequest())
    assert (found.version, found.requests, found.errors, found.uptime_s) == (VERSION, 8, 1, 60.0)
    assert (found.upstreams, found.backends) == (1, 2)
    assert (found.performance.workers, found.performance.in_flight) == (2, 4)


@pytest.mark.usefixtures("service")
def test_get_backend_stats(call: Caller) -> None:
    every = call("MonitorService", "GetBackendStats", pb.GetBackendStatsRequest()).backends
    assert [one.backend_id for one in every] == ["one", "two"]
    one = every[0]
    assert (one.requests, one.errors, one.last_at, one.head.count) == (8, 1, NOW_MS, 8)
    assert one.outcomes == {"2xx": 7, "connect_refused": 1}
    assert (one.health.reason, one.HasField("performance")) == ("connection refused", False)
    request = pb.GetBackendStatsRequest(upstream="default", backend_id="two")
    (two,) = call("MonitorService", "GetBackendStats", request).backends
    assert (two.weight, two.running, two.requests, two.HasField("health")) == (50, 4, 0, False)
    assert two.performance == pb.Performance(cpu_usage=45.5, memory_usage=67.75, load_avg_1=2.0, reported_at=NOW_MS)


def test_report_performance(service: Service, call: Caller) -> None:
    performance = pb.Performance(cpu_usage=45.2, load_avg_1=0)
    request = pb.ReportPerformanceRequest(upstream="default", backend_id="one", performance=performance)
    call("MonitorService", "ReportPerformance", request)
    report = service.memory.about_balancing.reports["default", "one"]
    assert (report.cpu_usage, report.memory_usage, report.load_avg_1) == (45.2, 0.0, 0.0)
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
    assert service.upstreams == {"default": UPSTREAM}


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
