"""JSON bodies."""

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import bodies
from proxy.config import Balancer, Forwarded, Protocols, Route, UpstreamTls


class Body(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    names: Annotated[list[str], msgspec.Meta(min_length=1, max_length=2)] = []


def refusal(struct: type[msgspec.Struct], text: str) -> str:
    with pytest.raises(bodies.BodyError) as caught:
        bodies.read(struct, text.encode())
    return str(caught.value)


def test_a_body_becomes_a_struct() -> None:
    text = b'{"target": "https://api.test", "head_timeout_s": 5, "forwarded": "append", "tls": {"verify": false}}'
    assert bodies.read(Route, text) == Route(
        target="https://api.test", head_timeout_s=5.0, forwarded=Forwarded.APPEND, tls=UpstreamTls(verify=False)
    )


def test_a_required_field_that_is_not_there_is_named() -> None:
    assert refusal(Body, "{}") == "name: missing"


def test_a_struct_that_may_be_null_is_read_as_one_or_is_null() -> None:
    given = b'{"upstream": "u", "protocols": {"sse": "ip_hash"}}'
    assert bodies.read(Route, given).protocols == Protocols(sse=Balancer.IP_HASH)
    assert bodies.read(Route, b'{"protocols": null}').protocols is None


def test_only_the_given_fields_are_read() -> None:
    assert bodies.fields(Route, b'{"via": null}') == {"via": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "the body: found a list, expected an object"),
        ("null", "the body: found null, expected an object"),
        ('{"targte": "x"}', "targte: unknown field, the nearest known one is target"),
        ('{"target": 5}', "target: found a number, expected text"),
        ('{"target": "x", "preserve_host": "true"}', "preserve_host: found text, expected true or false"),
        ('{"target": "x", "preserve_host": 1}', "preserve_host: found a number, expected true or false"),
        (
            '{"target": "x", "max_connections": "5"}',
            "max_connections: found text, expected an integer from 1 to 10000000",
        ),
        ('{"target": "x", "max_connections": 0}', "max_connections: found a number, expected an integer from 1 to"),
        ('{"target": "x", "forwarded": "of"}', "forwarded: found text, expected one of off, append, replace"),
        ('{"target": "x", "tls": []}', "tls: found a list, expected an object"),
        ('{"target": "x", "tls": {"verfy": true}}', "tls.verfy: unknown field, the nearest known one is verify"),
        ('{"target": "x", "tls": {"verify": null}}', "tls.verify: found null, expected true or false"),
        (
            '{"target": "x", "protocols": {"ws": "weight"}}',
            "protocols.ws: unknown field, expected one of websocket, sse",
        ),
        ('{"target": "x", "protocols": {"sse": 1}}', "protocols.sse: found a number, expected one of ip_hash, "),
        ("", "the body is not JSON: "),
        ("{", "the body is not JSON: "),
        ('{"target": "\\ud800"}', "the body is not JSON: "),
        ('{"target": "x", "head_timeout_s": 1e999}', "the body is not JSON: "),
        ("[" * 100_000, "the body is not JSON: "),
    ],
)
def test_a_refusal_names_the_field_and_what_was_expected(text: str, says: str) -> None:
    assert refusal(Route, text).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"name": ""}', "name: found text, expected text of 1 to 5 characters"),
        ('{"name": "x", "names": []}', "names: found a list, expected a list of 1 to 2 texts"),
        ('{"name": "x", "names": ["a", 1]}', "names[1]: found a number, expected text"),
    ],
)
def test_bounds_are_told(text: str, says: str) -> None:
    assert refusal(Body, text) == says


def test_a_refusal_is_one_short_line_without_the_value() -> None:
    assert "s3cret" not in refusal(Body, '{"name": "s3cret-and-too-long"}')
    told = refusal(Body, '{"\\n' + "x" * 10_000 + '": 1}')
    assert "\n" not in told
    assert len(told) < 200


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_be_refused(body: bytes) -> None:
    with pytest.raises(bodies.BodyError):
        bodies.read(Body, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["target", "via", "tls", "max_connections", "idle_timeout_s"]), JSON))
def test_whatever_is_read_fits_the_struct(value: object) -> None:
    try:
        text = msgspec.json.encode(value)
    except UnicodeEncodeError:
        return
    try:
        route = bodies.read(Route, text)
    except bodies.BodyError:
        return
    assert msgspec.json.decode(msgspec.json.encode(route), type=Route) == route
