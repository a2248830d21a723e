"""Upstreams as text and back, the same checks as for a file, and no route without its upstream."""

import pytest
from hypothesis import given

from admin.rules import upstream_specs
from proxy.config import Backend, Balancer, ConfigError, HealthCheck, Route, Upstream, UpstreamTls
from tests.admin.upstreams import NAMED, UPSTREAMS

A = Backend(url="https://a.example", id="b1")


@given(UPSTREAMS)
def test_what_is_encoded_comes_back(upstream: Upstream) -> None:
    assert upstream_specs.decode("api", upstream_specs.encode(upstream)) == upstream


@given(NAMED)
def test_what_was_checked_passes_as_it_is(upstreams: dict[str, Upstream]) -> None:
    assert upstream_specs.checked(upstreams) == upstreams


def test_defaults_are_left_out() -> None:
    upstream = Upstream(backends=(A, Backend(url="http://b.example", id="b2", health_check=HealthCheck())))
    assert upstream_specs.encode(upstream) == (
        '{"backends":[{"url":"https://a.example","id":"b1"},{"url":"http://b.example","id":"b2","health_check":{}}]}'
    )
    assert upstream_specs.encode(Upstream(balancer=Balancer.IP_HASH)) == '{"balancer":"ip_hash"}'


def test_backends_are_given_ids_and_urls_one_spelling() -> None:
    given = Upstream(backends=(Backend(url="HTTPS://A.example:443/"), Backend(url="http://b.example:81")))
    assert [(one.id, one.url) for one in upstream_specs.checked({"api": given})["api"].backends] == [
        ("api-a.example-443", "https://a.example"),
        ("api-b.example-81", "http://b.example:81"),
    ]


def test_a_spec_of_another_program_is_told_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        upstream_specs.decode("api", '{"colour":"red"}')
    assert str(caught.value) == "database: upstreams.api: Object contains unknown field `colour`"


@pytest.mark.parametrize(
    ("name", "upstream", "message"),
    [
        ("a b", Upstream(), "upstreams.a b: not a name"),
        (
            "api",
            Upstream(backends=(Backend(url="https://a.example/v1"),)),
            "upstreams.api.backends.0.url: found 'https:",
        ),
        ("api", Upstream(backends=(A, A)), "upstreams.api.backends.1.id: b1 is there twice"),
        ("api", Upstream(backends=(Backend(url="https://a", weight=0),)), "upstreams.api.backends.0.weight: found 0"),
        ("api", Upstream(queue_max=-1), "upstreams.api.queue_max: found -1"),
        (
            "api",
            Upstream(backends=(Backend(url="http://a"),), tls=UpstreamTls(verify=False)),
            "upstreams.api.tls: no backend is an https URL",
        ),
    ],
)
def test_refusals_are_those_of_a_file(name: str, upstream: Upstream, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        upstream_specs.checked({name: upstream})
    assert str(caught.value).startswith(message)


def test_a_route_needs_its_upstream_and_an_upstream_stays_as_long_as_a_route_needs_it() -> None:
    routes = {"/a": Route(upstream="api"), "/b": Route(target="https://b.example")}
    upstream_specs.refuse_unknown(routes, routes, {"other"}, {"api": Upstream()})
    with pytest.raises(ConfigError, match=r"^routes\./a\.upstream: no upstream is called api, there is none$"):
        upstream_specs.refuse_unknown(routes, routes, (), {})
    with pytest.raises(ConfigError, match=r"^routes\./a\.upstream: .* the nearest known one is apo$"):
        upstream_specs.refuse_unknown(routes, routes, (), {"apo": Upstream()})
    with pytest.raises(ConfigError, match=r"^upstreams\.api: it cannot be removed, the route /a uses it$"):
        upstream_specs.refuse_unknown({}, routes, {"api"}, {})
