"""The contract itself: its defaults obey its own bounds, its structs are closed, its errors are one line."""

import msgspec
import pytest

from proxy.config import (
    Config,
    ConfigError,
    Credentials,
    CredentialSource,
    Estimates,
    Forwarded,
    ListenerTls,
    ModelPrice,
    Route,
    Server,
    Upstream,
    UpstreamTls,
    lacks_api_key,
    unverified,
    warnings_of,
)


def test_the_defaults_obey_their_own_bounds() -> None:
    config = Config(routes={"/a": Route(target="http://a")}, tls=ListenerTls(certificate="c", key="k"))
    assert msgspec.convert(msgspec.to_builtins(config), Config) == config


def test_the_promised_defaults() -> None:
    assert (Server().host, Server().port, Server().workers) == ("127.0.0.1", 8000, 1)
    route = Route(target="http://a")
    assert route.head_timeout_s is None
    assert route.idle_timeout_s is None
    assert route.forwarded is Forwarded.OFF
    assert route.tls == UpstreamTls(verify=True)


@pytest.mark.parametrize("struct", [Config, Server, Route, ListenerTls, UpstreamTls])
def test_structs_are_frozen_and_refuse_unknown_keys(struct: type[msgspec.Struct]) -> None:
    assert struct.__struct_config__.frozen
    assert struct.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize(
    ("struct", "values"),
    [
        (Server, {"port": 0}),
        (Server, {"port": 65536}),
        (Server, {"workers": 0}),
        (Server, {"drain_timeout_s": -1}),
        (Server, {"drain_timeout_s": float("nan")}),
        (Server, {"body_timeout_s": float("inf")}),
        (Server, {"surprise": 1}),
        (ModelPrice, {"input": float("inf"), "output": 0}),
        (ModelPrice, {"input": float("nan"), "output": 0}),
        (ModelPrice, {"input": 0, "output": -0.1}),
        (Estimates, {"output_tokens": -1}),
        (Route, {"target": "http://a", "connect_timeout_s": 0}),
        (Route, {"target": "http://a", "max_connections": 0}),
        (Route, {"target": "http://a", "body_bytes_max": -1}),
    ],
)
def test_bounds(struct: type[msgspec.Struct], values: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, struct)


FIXED = Route(target="http://a", credential=CredentialSource.FIXED)


@pytest.mark.parametrize(
    ("routes", "named"),
    [
        ({}, None),
        ({"/a": Route(target="http://a")}, None),
        ({"/a": Route(target="http://a", credential=CredentialSource.AUTO)}, None),
        ({"/b": FIXED, "/a": FIXED}, "requests of /a, /b (credential: fixed)"),
        ({f"/{number}": FIXED for number in range(7)}, "requests of /0, /1, /2, /3, /4 and 2 more (credential: fixed)"),
    ],
)
def test_routes_without_the_key_that_they_want_are_named(routes: dict[str, Route], named: str | None) -> None:
    line = lacks_api_key(routes, Credentials())
    assert (named in line) if named else line == ""
    assert lacks_api_key(routes, Credentials(api_key="k")) == ""


UNVERIFIED = UpstreamTls(verify=False)


@pytest.mark.parametrize(
    ("routes", "upstreams", "named"),
    [
        ({"/a": Route(target="https://a")}, {"b": Upstream()}, None),
        ({"/a": Route(target="https://a", tls=UNVERIFIED)}, {}, "requests of /a"),
        ({"/a": Route(upstream="b")}, {"b": Upstream(tls=UNVERIFIED)}, "requests of upstream b"),
        (
            {f"/{number}": Route(target="https://a", tls=UNVERIFIED) for number in range(6)},
            {"b": Upstream(tls=UNVERIFIED)},
            "requests of upstream b, /0, /1, /2, /3 and 2 more",
        ),
    ],
)
def test_whose_certificates_nobody_checks_is_named(
    routes: dict[str, Route], upstreams: dict[str, Upstream], named: str | None
) -> None:
    line = unverified(routes, upstreams)
    assert line.endswith(named) if named else line == ""
    assert warnings_of(routes, upstreams, Credentials()) == ([line] if named else [])


def test_an_error_is_one_printable_line() -> None:
    error = ConfigError("f\n.yaml", "", "a\x1b[31m\tb\u2028ü")
    assert str(error) == r"f\n.yaml: a\x1b[31m\tb\u2028ü"
