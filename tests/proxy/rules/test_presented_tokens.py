"""Where an access token is shown, and what it opens."""

import pytest

from proxy.rules.access_tokens import AccessToken
from proxy.rules.headers import Header
from proxy.rules.presented_tokens import TOKEN_BYTES_MAX, is_for_model, opens, shown

TOKEN = b"flow_abc"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ([(b"authorization", b"Bearer flow_abc")], b"authorization"),
        ([(b"authorization", b"bearer   flow_abc ")], b"authorization"),
        ([(b"x-api-key", b" flow_abc")], b"x-api-key"),
        ([(b"x-goog-api-key", TOKEN)], b"x-goog-api-key"),
        ([(b"api-key", TOKEN)], b"api-key"),
        ([(b"accesstoken", TOKEN)], b"accesstoken"),
        ([(b"access-token", TOKEN)], b"access-token"),
        ([(b"authorization", b"Bearer sk-1"), (b"access-token", TOKEN)], b"access-token"),
        ([(b"x-api-key", b"sk-1"), (b"authorization", b"Bearer flow_abc")], b"authorization"),
        ([(b"x-api-key", TOKEN), (b"authorization", b"Basic dTpw")], b"x-api-key"),
        ([(b"authorization", b"Basic dTpw")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"authorization", TOKEN)], None),
        ([(b"x-api-key", b"")], None),
        ([(b"x-api-key", TOKEN), (b"x-api-key", b"other")], None),
        ([(b"access-token", b""), (b"authorization", b"Bearer flow_abc")], None),
        ([(b"x-api-key", b"x" * (TOKEN_BYTES_MAX + 1))], None),
        ([(b"cookie", b"access-token=flow_abc")], None),
        ([], None),
    ],
)
def test_where_a_token_is_shown(fields: list[Header], field: bytes | None) -> None:
    assert shown(fields) == (None if field is None else (TOKEN, [field]))


def token(**fields: tuple[str, ...]) -> AccessToken:
    return AccessToken("tok_1", 1, **fields)  # type: ignore[arg-type]


def test_without_bounds_it_opens_all() -> None:
    assert opens(token(), "/openai", "192.0.2.1")
    assert opens(token(), "/", "not an address")
    assert is_for_model(token(), "")


def test_routes() -> None:
    bound = token(routes=("/openai", "/claude"))
    assert opens(bound, "/claude", "192.0.2.1")
    assert not opens(bound, "/", "192.0.2.1")
    assert not opens(bound, "/openai/v1", "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("::ffff:10.9.9.9", True),
        ("", False),
        ("unix:", False),
    ],
)
def test_networks(address: str, *, inside: bool) -> None:
    assert opens(token(networks=("10.0.0.0/8", "2001:db8::/32")), "/", address) is inside


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("gpt-4o", True),
        ("gpt-4o-mini", False),
        ("claude-sonnet-4", True),
        ("claude-", True),
        ("claud", False),
        ("", False),
    ],
)
def test_models(model: str, *, allowed: bool) -> None:
    assert is_for_model(token(models=("gpt-4o", "claude-*")), model) is allowed


def test_a_star_alone_is_every_model_that_has_a_name() -> None:
    assert is_for_model(token(models=("*",)), "any")
    assert not is_for_model(token(models=("*",)), "")


@pytest.mark.parametrize(
    ("others", "again"),
    [
        ([(b"authorization", b"Bearer flow_abc")], [b"authorization"]),
        ([(b"x-api-key", b" flow_abc "), (b"api-key", TOKEN)], [b"x-api-key", b"api-key"]),
        ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"flow_abcd")], []),
        ([(b"x-mine", TOKEN)], []),
    ],
)
def test_all_fields_that_show_it_are_told(others: list[Header], again: list[bytes]) -> None:
    assert shown([*others, (b"accesstoken", TOKEN)]) == (TOKEN, [b"accesstoken", *again])


def test_a_token_with_a_space_is_told_with_its_field() -> None:
    assert shown([(b"x-api-key", b"two words"), (b"api-key", b"words")]) == (b"two words", [b"x-api-key"])
