"""The client's secret goes out, the upstream's goes in, and no other byte of a query changes."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.credential_fields import (
    CLIENT_FIELDS,
    CLIENT_PARAMETERS,
    credential_field,
    header,
    is_presentable,
    placement,
    shown_as,
    with_parameter,
    without_secret,
    without_secret_protocols,
    without_secrets,
)

CANARY = b"CANARYcanary1234567890"


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"", b""),
        (b"alt=sse", b"alt=sse"),
        (b"alt=sse&key=%b", b"alt=sse"),
        (b"key=%b&alt=sse", b"alt=sse"),
        (b"key=%b", b""),
        (b"a=1&key=%b&b=%%20&&c", b"a=1&b=%%20&&c"),
        (b"key=%b&key=%b&a", b"a"),
        (b"KEY=%b&a", b"a"),
        (b"k%%65y=%b&a", b"a"),
        (b"key[]=%b&a", b"a"),
        (b"+key=%b&a", b"a"),
        (b"a=1;api_key=%b&b=2", b"a=1&b=2"),
        (b"accessToken=%b&access_token=%b&x=%%26key", b"x=%%26key"),
        (b"&key=%b&", b"&"),
        (b"keys=1&monkey=2&x=key=3", b"keys=1&monkey=2&x=key=3"),
    ],
)
def test_a_query_loses_the_clients_secrets_and_nothing_else(query: bytes, kept: bytes) -> None:
    query = query.replace(b"%b", CANARY).replace(b"%%", b"%")
    assert without_secrets(query) == kept.replace(b"%%", b"%")


names = st.sampled_from([b"a", b"key", b"Key", b"api_key", b"alt", b"", b"ke%79", b"pageToken"])
parts = st.tuples(names, st.binary(max_size=6).map(lambda value: value.translate(None, b"&;")))


@given(st.lists(parts, max_size=6), st.sampled_from([b"&", b";"]))
def test_what_is_left_are_the_other_parameters_in_their_order(pairs: list[tuple[bytes, bytes]], mark: bytes) -> None:
    def joined(chosen: list[tuple[bytes, bytes]]) -> bytes:
        return mark.join(name + b"=" + value for name, value in chosen)

    others = [pair for pair in pairs if pair[0] in (b"a", b"alt", b"", b"pageToken")]
    assert without_secrets(joined(pairs)) == joined(others)


@given(st.binary(max_size=60))
def test_a_query_is_cut_once_and_for_all(query: bytes) -> None:
    assert without_secrets(without_secrets(query)) == without_secrets(query)


@pytest.mark.parametrize(
    ("query", "result"), [(b"", b"key=a%2Bb%26c"), (b"alt=sse", b"alt=sse&key=a%2Bb%26c"), (b"a&", b"a&&key=a%2Bb%26c")]
)
def test_a_credential_is_the_last_parameter(query: bytes, result: bytes) -> None:
    assert with_parameter(query, b"key", shown_as(placement("?key"), "a+b&c")[1]) == result
    assert dict(parse_qsl(result.decode()))["key"] == "a+b&c"


def test_authorization_says_bearer_unless_the_secret_names_its_scheme() -> None:
    assert header(b"authorization", "sk-1") == (b"authorization", b"Bearer sk-1")
    assert header(b"authorization", "Basic dTpw") == (b"authorization", b"Basic dTpw")
    assert header(b"x-api-key", "sk-1") == (b"x-api-key", b"sk-1")


@pytest.mark.parametrize("secret", ["", " a", "a ", "a\r\nx: y", "a\n", "ä", "a\0", "a\x7f", "x" * 20_000])
def test_a_secret_that_would_break_its_field_is_refused_without_a_word_of_it(secret: str) -> None:
    assert not is_presentable(secret)
    with pytest.raises(ValueError, match=r"^a credential has characters that no header field can have$"):
        header(b"x-api-key", secret)


@pytest.mark.parametrize(
    ("text", "used"),
    [("X-Api-Key", "x-api-key"), ("authorization", "authorization"), ("?key", "?key"), ("?API.Key", "?API.Key")],
)
def test_a_setting_names_a_field_or_a_parameter(text: str, used: str) -> None:
    assert credential_field(text) == used


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "x api",
        "x:y",
        "Ä",
        "?a b",
        "?a&b",
        "?a=b",
        "?ä",
        "Host",
        "content-length",
        "Connection",
        "TE",
        "x" * 101,
    ],
)
def test_a_setting_that_would_break_a_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(the name|a header field|\? and)"):
        credential_field(text)


def test_a_placement_drops_what_it_replaces_beside_all_that_a_client_may_use() -> None:
    field = placement("X-Custom")
    assert (field.field, field.parameter) == (b"x-custom", b"")
    assert field.dropped_fields == CLIENT_FIELDS | {b"x-custom"}
    assert field.dropped_parameters == CLIENT_PARAMETERS

    parameter = placement("?Custom")
    assert (parameter.field, parameter.parameter) == (b"", b"Custom")
    assert without_secrets(b"custom=1&a", parameter.dropped_parameters) == b"a"


def test_the_names_of_secrets_are_in_lower_case_and_cookies_are_among_them() -> None:
    assert all(name == name.lower() for name in CLIENT_FIELDS | CLIENT_PARAMETERS)
    assert {
        b"authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"api-key",
        b"proxy-authorization",
        b"cookie",
    } <= CLIENT_FIELDS


@pytest.mark.parametrize(
    ("offered", "crosses"),
    [
        (b"realtime, openai-insecure-api-key.CANARY, openai-beta.realtime-v1", b"realtime, openai-beta.realtime-v1"),
        (b"base64url.bearer.authorization.k8s.io.CANARY,v4.channel.k8s.io", b"v4.channel.k8s.io"),
        (b"token,CANARY", b""),
        (b"chat, Bearer , CANARY , graphql-transport-ws", b"chat, graphql-transport-ws"),
        (b"chat,sk-CANARY1234567890", b"chat"),
        (b"mqtt, wamp.2.json,ocpp1.6", b"mqtt, wamp.2.json, ocpp1.6"),
        (b"", b""),
    ],
)
def test_no_subprotocol_carries_a_client_s_secret(offered: bytes, crosses: bytes) -> None:
    fields = [(b"host", b"a"), (b"sec-websocket-protocol", offered), (b"origin", b"b")]
    left = [(b"sec-websocket-protocol", crosses)] if crosses else []
    assert without_secret_protocols(fields) == [(b"host", b"a"), (b"origin", b"b"), *left]


def test_subprotocols_of_several_fields_are_one_list() -> None:
    """A word in one field and the secret in the next (RFC 6455 section 4.1)."""
    fields = [(b"sec-websocket-protocol", b"chat, token"), (b"sec-websocket-protocol", b"CANARY")]
    assert without_secret_protocols(fields) == [(b"sec-websocket-protocol", b"chat")]


def test_an_answer_does_not_repeat_the_relay_s_own_secret() -> None:
    fields = [(b"location", b"https://up.example/v1/?a=1&key=" + CANARY), (b"date", b"today")]
    assert without_secret(fields, CANARY) == [(b"location", b"https://up.example/v1/?a=1&key=***"), (b"date", b"today")]
