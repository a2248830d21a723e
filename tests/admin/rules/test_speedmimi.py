"""Reference 004's file as routes, settings, problems and what is ignored."""

from typing import Any

import pytest

from admin.rules.speedmimi import Found, read, seconds
from proxy.config import ConfigError, Route
from proxy.sources import yaml_document

# As the reference documents it.
DOCUMENTED = """
server:
  host: "0.0.0.0"
  port: 8080
  read_timeout: 30s
  write_timeout: 30s
  max_conn: 10000
  real_ip_header: "X-Real-IP"
  trusted_proxies:
    - "127.0.0.1/32"
    - "10.0.0.0/8"

ssl:
  enabled: false
  cert_file: "certs/server.crt"
  key_file: "certs/server.key"

backends:
  default:
    - id: "backend1"
      name: "Backend Server 1"
      host: "127.0.0.1"
      port: 8081
      weight: 100
      scheme: "http"
      active: true
      max_conn: 1000
      health_check:
        path: "/health"
        interval: 30s
        timeout: 5s
        failures: 3

routing:
  default:
    path: "/"
    upstream: "default"
    load_balancer: "least_connections_weight"
    protocols:
      websocket: "ip_hash"
      sse: "ip_hash"

grpc:
  enabled: true
  host: "127.0.0.1"
  port: 9090
"""


def found(text: str) -> Found:
    return read("f.yaml", yaml_document.parse(text, "f.yaml"))


def routed(backends: str, **entry: Any) -> Found:
    words = ", ".join(f"{name}: {value}" for name, value in {"path": "/", "upstream": "up", **entry}.items())
    return found(f"backends: {{up: {backends}}}\nrouting: {{one: {{{words}}}}}")


def test_the_documented_file_is_one_route_some_settings_and_the_rest_by_name() -> None:
    all_of_it = found(DOCUMENTED)
    assert all_of_it.routes == {"/": Route(target="http://127.0.0.1:8081")}
    timeouts = {"header_timeout_s": 30.0, "body_timeout_s": 30.0}
    assert all_of_it.settings == {"server": {"host": "0.0.0.0", "port": 8080, "max_connections": 10000, **timeouts}}
    assert all_of_it.problems == []
    assert all_of_it.ignored == [
        "f.yaml:6: server.write_timeout",
        "f.yaml:8: server.real_ip_header",
        "f.yaml:9: server.trusted_proxies",
        "f.yaml:24: backends.default.0.weight",
        "f.yaml:29: backends.default.0.health_check.path",
        "f.yaml:30: backends.default.0.health_check.interval",
        "f.yaml:31: backends.default.0.health_check.timeout",
        "f.yaml:32: backends.default.0.health_check.failures",
        "f.yaml:38: routing.default.load_balancer",
        "f.yaml:40: routing.default.protocols.websocket",
        "f.yaml:41: routing.default.protocols.sse",
        "f.yaml:44: grpc.enabled",
        "f.yaml:45: grpc.host",
        "f.yaml:46: grpc.port",
    ]


def test_certificates_are_settings_where_they_are_used() -> None:
    text = DOCUMENTED.replace("enabled: false", "enabled: true")
    assert found(text).settings["tls"] == {"certificate": "certs/server.crt", "key": "certs/server.key"}


def test_a_path_is_kept_as_the_reference_keeps_it() -> None:
    assert routed("[{host: h, port: 1}]", path="/api").routes == {"/api": Route(target="http://h:1/api")}


@pytest.mark.parametrize(
    ("backend", "route"),
    [
        ("{host: h, port: 1}", Route(target="http://h:1")),
        ("{host: h}", Route(target="http://h")),
        ("{host: '::1', port: 1, scheme: https}", Route(target="https://[::1]:1")),
        ("{host: h, max_conn: 5}", Route(target="http://h", max_connections=5)),
        ("{host: h, max_conn: 0}", Route(target="http://h")),
        ("{host: h}, {host: off, active: false}", Route(target="http://h")),
    ],
)
def test_an_active_backend_is_a_target(backend: str, route: Route) -> None:
    assert routed(f"[{backend}]").routes == {"/": route}


def test_a_backend_that_is_switched_off_is_ignored_by_name() -> None:
    assert routed("[{host: h}, {host: off, active: false}]").ignored == ["f.yaml:1: backends.up.1.host"]


@pytest.mark.parametrize(
    ("backends", "count"),
    [
        ("[{host: a}, {host: b}]", "2 active backends"),
        ("[{host: a, active: false}]", "0 active backends"),
        ("[]", "no backends"),
    ],
)
def test_an_upstream_of_another_number_of_backends_is_refused_with_its_name_and_number(
    backends: str, count: str
) -> None:
    refused = routed(backends)
    assert refused.routes == {}
    said = f"f.yaml:2: routing.one: the upstream up has {count}, expected one: a route leads to one target"
    assert refused.problems == [said]


def test_an_upstream_that_is_not_there_is_refused() -> None:
    assert "the upstream none has no backends" in routed("[{host: a}]", upstream="none").problems[0]


def test_a_path_that_is_there_twice_is_refused() -> None:
    text = "backends: {u: [{host: a}]}\nrouting:\n  a: {path: /x, upstream: u}\n  b: {path: /x, upstream: u}"
    twice = found(text)
    assert (len(twice.routes), twice.problems) == (1, ["f.yaml:4: routing.b.path: /x is there twice"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {port: '80'}", "f.yaml:1: server.port: found '80', expected an integer"),
        ("server: {port: true}", "f.yaml:1: server.port: found true, expected an integer"),
        ("server: {read_timeout: 30}", "f.yaml:1: server.read_timeout: found 30, expected text"),
        ("server: {read_timeout: soon}", "found 'soon', expected a duration such as 30s or 1m30s"),
    ],
)
def test_a_value_of_another_kind_is_a_problem(text: str, problem: str) -> None:
    assert [problem in one for one in found(text).problems] == [True]


@pytest.mark.parametrize("text", ["", "[]", "routes: {}", "text"])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml"):
        found(text)


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("1.5s", 1.5), ("2us", 2e-6)]
)
def test_durations_are_gos(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "30", "s", "30 s", "-3s", "3d", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="30s"):
        seconds(text)
