"""Nested settings of the key pool."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import key_pool_names
from admin.rules.bodies import BodyError
from admin.rules.key_pool_names import NAMES, changes, shown
from proxy.config import Algorithm, BalancePreset, BalanceQuery, KeyPool, PoolGroup


def test_each_setting_has_its_place() -> None:
    assert {one.field for one in NAMES} == set(KeyPool.__struct_fields__) - {"groups"}
    assert len({one.field for one in NAMES}) == len(NAMES)


def test_the_documented_update() -> None:
    """The reference's own example."""
    document = {
        "algorithm": "max-remaining",
        "retry": {"enabled": True, "max": 3},
        "autoBan": {"enabled": True, "ban_402": True},
    }
    assert changes(document) == {
        "algorithm": Algorithm.MAX_REMAINING,
        "retry_enabled": True,
        "retry_max": 3,
        "auto_ban_enabled": True,
        "ban_402": True,
    }


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"retry": {"maxRetries": 2, "retryDelay": 50}}, {"retry_max": 2, "retry_delay_ms": 50}),
        ({"retry": {"max": 2, "delay": 50}}, {"retry_max": 2, "retry_delay_ms": 50}),
        ({"autoBan": {"ban402": False, "ban401": True}}, {"ban_402": False, "ban_401": True}),
        ({"autoBan": {"errorThreshold": 7}}, {"error_threshold": 7}),
        ({"performance": {"concurrentLimit": 9}}, {"concurrent_limit": 9}),
        ({"performance": {"requestTimeout": 100}}, {"request_timeout_ms": 100}),
        ({"multiTier": {"enabled": True, "autoFallback": False, "strictMode": True}},
         {"multi_tier": True, "auto_fallback": False, "strict_mode": True}),
        ({"retry_max": 2, "ban_s": 5}, {"retry_max": 2, "ban_s": 5.0}),
        ({"retry": {"max": 2, "maxRetries": 2}}, {"retry_max": 2}),
        ({"balance": {"interval_s": None, "queries": {"a": {"preset": "factory"}}}},
         {"balance_interval_s": None, "balance_queries": {"a": BalanceQuery(preset=BalancePreset.FACTORY)}}),
        ({"balance_queries": {"a": {"url": "http://x.test", "used": "/u"}}},
         {"balance_queries": {"a": BalanceQuery(url="http://x.test", used="/u")}}),
        ({}, {}),
    ],
)  # fmt: skip
def test_all_spellings_are_taken(document: Any, expected: Any) -> None:
    assert changes(document) == expected


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "the body: found a list, expected an object"),
        ({"retry": 3}, "retry: found a number, expected an object"),
        ({"retry": {"max": "3"}}, "retry.max: found text, expected an integer from 0 to 20"),
        ({"retry": {"max": 21}}, "retry.max: found a number, expected an integer from 0 to 20"),
        ({"retry": {"maxRetires": 3}}, "retry.maxRetires: unknown field, the nearest known one is maxRetries"),
        ({"algoritm": "random"}, "algoritm: unknown field, the nearest known one is algorithm"),
        ({"algorithm": "best"}, "algorithm: found text, expected one of round-robin, "),
        ({"groups": {}}, "groups: unknown field"),
        ({"retry": {"max": 2, "maxRetries": 3}}, "retry.maxRetries: the same setting as retry.max, with another value"),
        (
            {"balance": {"interval_s": 5}},
            "balance.interval_s: found a number, expected a number from 10 to 31536000 or null",
        ),
        ({"balance": {"queries": []}}, "balance.queries: found a list, expected an object"),
        (
            {"balance": {"queries": {"a": {"urll": ""}}}},
            "balance.queries.a.urll: unknown field, the nearest known one is url",
        ),
        ({"balance": {"queries": {"a": {"used": 5}}}}, "balance.queries.a.used: found a number, expected text or null"),
        (
            {"balance": {"queries": {"a": {"headers": {"x": 5}}}}},
            "balance.queries.a.headers: found an object, expected a mapping from text to text",
        ),
        (
            {"balance": {"queries": {"a": {"preset": "x"}}}},
            "balance.queries.a.preset: found text, expected one of factory or null",
        ),
        ({"retry": {"max": 2}, "retry_max": 3}, "retry_max: the same setting as retry.max, with another value"),
    ],
)
def test_what_is_no_setting_is_told(document: Any, says: str) -> None:
    with pytest.raises(BodyError) as caught:
        changes(document)
    assert str(caught.value).startswith(says)


def test_all_defaults_are_shown_and_no_groups() -> None:
    whole = shown(KeyPool(groups={"main": PoolGroup()}))
    assert whole["algorithm"] == "round-robin"
    assert whole["retry"] | {} == whole["retry"]
    assert {name: whole["retry"][name] for name in ("enabled", "max", "delay")} == {
        "enabled": True,
        "max": 3,
        "delay": 1000,
    }
    assert whole["performance"] == {"concurrentLimit": 50, "requestTimeout": 10_000}
    assert whole["multiTier"] == {"enabled": False, "autoFallback": True, "strictMode": False}
    assert whole["balance"] == {"interval_s": 300.0, "queries": {}}
    assert "groups" not in whole


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "algorithm": st.sampled_from(Algorithm),
            "retry_max": st.integers(0, 20),
            "retry_statuses": st.lists(st.integers(400, 599), max_size=3).map(tuple),
            "ban_s": st.floats(1, 1000),
            "strict_mode": st.booleans(),
        },
    )
)
def test_what_is_shown_can_be_given_back(values: dict[str, Any]) -> None:
    pool = KeyPool(**values)
    document = msgspec.json.decode(msgspec.json.encode(shown(pool)))
    assert KeyPool(**changes(document)) == pool
    assert key_pool_names.shown(KeyPool(**changes(document))) == shown(pool)
