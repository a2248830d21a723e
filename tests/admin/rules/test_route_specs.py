"""Routes as text and back, and the same checks as for a file."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import route_specs
from proxy.config import ConfigError, Forwarded, Route, UpstreamTls

OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "connect_timeout_s": st.none() | st.floats(0.1, 100),
    "head_timeout_s": st.none() | st.integers(1, 100).map(float),
    "preserve_host": st.booleans(),
    "forwarded": st.sampled_from(Forwarded),
    "via": st.none() | st.just("relaygate"),
    "max_connections": st.integers(1, 2000),
    "tls": st.builds(UpstreamTls, verify=st.booleans(), server_name=st.none() | st.just("b.example")),
}
ROUTES = st.fixed_dictionaries({"target": st.sampled_from(["https://a", "http://b/c"])}, optional=OPTIONS).map(
    lambda fields: msgspec.convert(fields, Route, from_attributes=True)
)


@given(ROUTES)
def test_what_is_encoded_comes_back(route: Route) -> None:
    assert route_specs.decode("/a", route_specs.encode(route)) == route
    assert route_specs.checked({"/a": route}) == {"/a": route}


def test_defaults_are_left_out() -> None:
    route = Route(target="http://a", connect_timeout_s=None, forwarded=Forwarded.APPEND, tls=UpstreamTls(verify=False))
    assert route_specs.encode(route) == (
        '{"target":"http://a","connect_timeout_s":null,"forwarded":"append","tls":{"verify":false}}'
    )
    assert route_specs.encode(Route(target="http://a")) == '{"target":"http://a"}'


def test_a_spec_of_another_program_is_told_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        route_specs.decode("/a", '{"target":"http://a","colour":"red"}')
    assert str(caught.value) == "database: routes./a: Object contains unknown field `colour`"


def test_prefix_and_target_are_normalised() -> None:
    assert route_specs.checked({"/a/": Route(target="HTTPS://A.Example:443/b")}) == {
        "/a": Route(target="https://a.example/b")
    }


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({"a": Route(target="http://a")}, "routes.a: not a prefix, expected a path that starts with /"),
        ({"/a b": Route(target="http://a")}, "routes./a b: not a prefix, expected a path of plain segments"),
        ({"/a": Route(target="ftp://a")}, "routes./a.target: found 'ftp://a', expected a URL that starts with http://"),
        ({"/a": Route(target="http://u:canary@a")}, "routes./a.target: found 'http://***@a', expected a URL without"),
        ({"/a": Route(target="http://a", via="a b")}, "routes./a.via: found 'a b', expected a name"),
        ({"/a": Route(target="http://a", max_connections=0)}, "routes./a.max_connections: found 0, expected"),
        ({"/a": Route(target="http://a"), "/a/": Route(target="http://a")}, "routes./a/: the same prefix as /a"),
        ({"/" + "a" * 512: Route(target="http://a")}, "routes.'/aaa"),
    ],
)
def test_refusals_are_those_of_a_file(routes: dict[str, Route], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        route_specs.checked(routes)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200
