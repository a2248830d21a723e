"""Reference 004's file as upstreams, routes, settings, problems and what is ignored."""

from collections.abc import Callable
from typing import Any

import pytest

from admin.rules.speedmimi import Found, read, seconds
from proxy.config import Backend, Balancer, ConfigError, HealthCheck, Protocols, Route, Upstream
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


def anything(_where: str, _url: str) -> None:
    """Every URL is allowed."""


def found(text: str, refuse: Callable[[str, str], None] = anything) -> Found:
    return read("f.yaml", yaml_document.parse(text, "f.yaml"), refuse)


def backed(backends: str) -> Found:
    return found(f"backends: {{up: {backends}}}")


def routed(**entry: Any) -> Found:
    words = ", ".join(f"{name}: {value}" for name, value in {"path": "/", "upstream": "up", **entry}.items())
    return found(f"backends: {{up: [{{host: h}}]}}\nrouting: {{one: {{{words}}}}}")


def test_the_documented_file_is_taken_over_but_for_one_key() -> None:
    all_of_it = found(DOCUMENTED)
    check = HealthCheck(path="/health", interval_s=30.0, timeout_s=5.0, failures=3)
    backend = Backend(
        url="http://127.0.0.1:8081",
        id="backend1",
        name="Backend Server 1",
        weight=100,
        max_connections=1000,
        health_check=check,
    )
    assert all_of_it.upstreams == {"default": Upstream(backends=(backend,))}
    by_address = Protocols(websocket=Balancer.IP_HASH, sse=Balancer.IP_HASH)
    route = Route(upstream="default", balancer=Balancer.LEAST_CONNECTIONS_WEIGHT, protocols=by_address)
    assert all_of_it.routes == {"/": route}
    assert all_of_it.settings == {
        "server": {
            "host": "0.0.0.0",
            "port": 8080,
            "max_connections": 10000,
            "real_ip_header": "X-Real-IP",
            "trusted_proxies": ["127.0.0.1/32", "10.0.0.0/8"],
            "header_timeout_s": 30.0,
            "body_timeout_s": 30.0,
        },
        "grpc": {"enabled": True, "host": "127.0.0.1", "port": 9090},
    }
    assert (all_of_it.partial, all_of_it.problems) == (set(), [])
    assert all_of_it.ignored == ["f.yaml:6: server.write_timeout"]


def test_certificates_are_settings_where_they_are_used() -> None:
    text = DOCUMENTED.replace("enabled: false", "enabled: true")
    assert found(text).settings["tls"] == {"certificate": "certs/server.crt", "key": "certs/server.key"}


def test_a_path_is_kept_as_the_reference_keeps_it() -> None:
    assert routed(path="/api/").routes == {"/api": Route(upstream="up", base="/api")}


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("{host: h, port: 1}", Backend(url="http://h:1", id="up-h-1")),
        ("{host: h}", Backend(url="http://h", id="up-h-80")),
        ("{id: '', host: H, scheme: ''}", Backend(url="http://h", id="up-h-80")),
        ("{host: h, port: 443, scheme: https}", Backend(url="https://h", id="up-h-443")),
        ("{host: '::1', port: 1, scheme: https}", Backend(url="https://[::1]:1", id="up-::1-1")),
        ("{host: h, id: a, active: false, weight: 7}", Backend(url="http://h", id="a", active=False, weight=7)),
        ("{host: h, id: a, max_conn: 5}", Backend(url="http://h", id="a", max_connections=5)),
        ("{host: h, id: a, max_conn: 0}", Backend(url="http://h", id="a", max_connections=0)),
        ("{host: h, id: a, health_check: null}", Backend(url="http://h", id="a")),
        ("{host: h, id: a, health_check: {}}", Backend(url="http://h", id="a", health_check=HealthCheck())),
        (
            "{host: h, id: a, health_check: {path: /up, interval: 1m30s, timeout: 500ms, failures: 2}}",
            Backend(
                url="http://h",
                id="a",
                health_check=HealthCheck(path="/up", interval_s=90.0, timeout_s=0.5, failures=2),
            ),
        ),
    ],
)
def test_a_backend_is_what_its_fields_say(text: str, backend: Backend) -> None:
    read_of_it = backed(f"[{text}]")
    assert read_of_it.upstreams == {"up": Upstream(backends=(backend,))}
    assert (read_of_it.problems, read_of_it.ignored) == ([], [])


def test_an_upstream_without_backends_is_one() -> None:
    assert backed("[]").upstreams == backed("null").upstreams == {"up": Upstream()}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("text", "0: expected a mapping of keys to values"),
        ("{port: 1}", "0.host: missing"),
        (
            "{host: a b}",
            "0.host: found 'a b', expected a host name of letters, digits, hyphens and dots, or an IP address",
        ),
        ("{host: h, scheme: ftp}", "0.scheme: found 'ftp', expected one of http, https"),
        ("{host: h, port: '80'}", "0.port: found '80', expected an integer from 1 to 65535"),
        ("{host: h, weight: 0}", "0.weight: found 0, expected an integer from 1 to 1000000"),
        ("{host: h, active: 'no'}", "0.active: found 'no', expected true or false"),
        (
            "{host: h, id: a b}",
            "0.id: found 'a b', expected 1 to 400 letters, digits, dots, colons, hyphens and underscores",
        ),
        ("{host: h, health_check: /up}", "0.health_check: expected a mapping of keys to values"),
        ("{host: h, health_check: {path: up}}", "0.health_check.path: found 'up', expected a path that starts with /"),
        ("{host: h, health_check: {interval: 30}}", "interval: found 30, expected a duration such as 30s or 1m30s"),
        ("{host: h, health_check: {timeout: 0s}}", "timeout: found '0s', expected a number from 0.05 to 3600"),
        ("{host: b, port: 80}", "0.host: http://b is there twice, expected backends of different urls"),
        ("{host: h, id: b}", "0.id: b is there twice, expected backends of different ids"),
    ],
)
def test_a_backend_that_cannot_be_used_is_named_and_the_others_are_taken_over(text: str, problem: str) -> None:
    other = Backend(url="http://b", id="b")
    # Of two that are alike, the later one is refused.
    items = ["{host: b, id: b}", text] if "twice" in problem else [text, "{host: b, id: b}"]
    read_of_it = backed(f"[{', '.join(items)}]")
    assert read_of_it.upstreams == {"up": Upstream(backends=(other,))}
    assert read_of_it.partial == {"up"}
    (told,) = read_of_it.problems
    place = f"f.yaml:1: backends.up.{items.index(text)}"
    assert told.startswith(place)
    assert problem.removeprefix("0") in told
    assert read_of_it.ignored == []


def test_a_backend_that_nothing_may_be_relayed_to_is_refused_with_its_place() -> None:
    asked: list[str] = []

    def refuse(where: str, url: str) -> None:
        asked.append(url)
        if url == "http://b":
            raise ConfigError(where, "no")

    text = "backends:\n  up:\n    - host: a\n    - name: x\n      host: b\n"
    read_of_it = found(text, refuse)
    assert asked == ["http://a", "http://b"]
    assert read_of_it.upstreams == {"up": Upstream(backends=(Backend(url="http://a", id="up-a-80"),))}
    assert read_of_it.problems == ["f.yaml:5: backends.up.1.host: no"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("backends: {a/b: []}", "backends.a/b: found 'a/b', expected 1 to 64 letters"),
        ("backends: {up: {host: h}}", "backends.up: found a mapping, expected a list of backends"),
    ],
)
def test_an_upstream_that_is_none_is_named(text: str, problem: str) -> None:
    read_of_it = found(text)
    assert read_of_it.upstreams == {}
    assert [one.startswith(f"f.yaml:1: {problem}") for one in read_of_it.problems] == [True]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"path": "api"}, "path: found 'api', expected a path that starts with /"),
        ({"upstream": "''"}, "upstream: missing"),
        ({"upstream": "us"}, "upstream: no upstream is called us, the nearest known one is up"),
        ({"load_balancer": "fastest"}, "load_balancer: found 'fastest', expected one of ip_hash, least_connections"),
        ({"protocols": "ip_hash"}, "protocols: expected a mapping of keys to values"),
        ({"protocols": "{sse: 1}"}, "protocols.sse: found 1, expected one of ip_hash"),
    ],
)
def test_a_routing_entry_that_cannot_be_used_is_named(entry: dict[str, str], problem: str) -> None:
    read_of_it = routed(**entry)
    assert read_of_it.routes == {}
    assert [one.startswith(f"f.yaml:2: routing.one.{problem}") for one in read_of_it.problems] == [True]


def test_a_route_to_an_upstream_that_is_not_taken_over_is_not_either() -> None:
    read_of_it = found("backends: {up: [{port: 1}]}\nrouting: {one: {upstream: up}}")
    assert (read_of_it.upstreams, read_of_it.routes) == ({}, {})
    assert read_of_it.problems == [
        "f.yaml:1: backends.up.0.host: missing",
        "f.yaml:2: routing.one.upstream: the upstream up has no backend that can be used",
    ]


def test_a_path_that_is_there_twice_is_refused() -> None:
    text = "backends: {u: [{host: a}]}\nrouting:\n  a: {path: /x, upstream: u}\n  b: {path: /x/, upstream: u}"
    twice = found(text)
    assert (len(twice.routes), twice.problems) == (1, ["f.yaml:4: routing.b.path: /x is there twice"])


def test_what_has_no_counterpart_is_ignored_by_name() -> None:
    text = "backends: {up: [{host: h, zone: a}]}\nrouting: {one: {upstream: up, protocols: {http: weight}}}"
    assert found(text).ignored == ["f.yaml:1: backends.up.0.zone", "f.yaml:2: routing.one.protocols.http"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {port: '80'}", "f.yaml:1: server.port: found '80', expected an integer from 1 to 65535"),
        ("server: {port: true}", "f.yaml:1: server.port: found true, expected an integer from 1 to 65535"),
        ("server: {host: relay}", "f.yaml:1: server.host: found 'relay', expected an IP address"),
        ("server: {read_timeout: 30}", "f.yaml:1: server.read_timeout: found 30, expected a duration such as 30s"),
        ("server: {read_timeout: soon}", "found 'soon', expected a duration such as 30s or 1m30s"),
        ("server: {trusted_proxies: [10.0.0.1/8]}", "server.trusted_proxies: found a list, expected networks such as"),
        ("server: {real_ip_header: X Real}", "server.real_ip_header: found 'X Real', expected the name of a header"),
        ("server: {}\ngrpc: {port: 0}", "f.yaml:2: grpc.port: found 0, expected an integer from 1 to 65535"),
        ("ssl: {enabled: 1}", "f.yaml:1: ssl.enabled: found 1, expected true or false"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_problem_and_not_printed(text: str, problem: str) -> None:
    read_of_it = found(text)
    assert [problem in one for one in read_of_it.problems] == [True]
    assert (read_of_it.settings, read_of_it.ignored) == ({}, [])


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
