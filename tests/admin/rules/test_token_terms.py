"""What operators may ask of access tokens, and what becomes of it: terms, or which field is wrong."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import token_terms
from admin.rules.access_tokens import (
    Changed,
    InvalidToken,
    NewToken,
    Operation,
    QuotaChange,
    QuotaOperation,
    QuotaType,
    TokenChange,
    TokenTerms,
)
from admin.rules.dates import DAY_MS
from proxy.rules.access_tokens import AMOUNT_MAX, OnStoreOutage, State, Unit

NOW_MS = 1_763_700_000_000
END_MS = 1_798_761_600_000
END = "2027-01-01 00:00:00"
WHO = {"ws_id": "test_workspace", "email": "test@example.com"}
TIME = TokenTerms(**WHO)  # type: ignore[arg-type]
COUNT = msgspec.structs.replace(TIME, quota_type=QuotaType.COUNT, unit=Unit.REQUESTS)
FAR = msgspec.structs.replace(TIME, expires_at=token_terms.END_MAX_MS)
HYBRID = msgspec.structs.replace(COUNT, quota_type=QuotaType.HYBRID, expires_at=END_MS)


def created(**fields: Any) -> tuple[TokenTerms, int | None]:
    return token_terms.created(msgspec.convert({**WHO, "operation": "unlimited", **fields}, NewToken), NOW_MS)


def changed(terms: TokenTerms, **fields: Any) -> Changed:
    return token_terms.changed(terms, msgspec.convert(fields, TokenChange), NOW_MS)


# ---- new ones -------------------------------------------------------------------------------------------------------


def test_the_references_own_example() -> None:
    terms, total = created(quota_type="count", total_quota=10, rate_limit_per_minute=60)
    assert total == 10
    assert terms == msgspec.structs.replace(COUNT, per_minute=60, per_second=10)


def test_without_a_quota_only_time_ends_a_token() -> None:
    assert created() == (TIME, None)
    assert created(operation="add", days=30)[0].expires_at == NOW_MS + 30 * DAY_MS
    assert created(operation="set", specific_date=END) == (msgspec.structs.replace(TIME, expires_at=END_MS), None)


def test_all_that_can_be_said() -> None:
    terms, total = created(
        operation="set",
        specific_date="2027-01-01",
        quota_type="hybrid",
        total_quota=AMOUNT_MAX,
        unit="nano_usd",
        rate_limit_per_minute=6000,
        rate_limit_burst=7,
        rate_limit_window_seconds=60,
        concurrent=3,
        routes=["/openai/", "/openai"],
        models=["gpt-4o*", "*"],
        networks=["10.0.0.0/8", "192.0.2.1"],
        refunds=False,
        on_store_outage="allow",
    )
    assert (total, terms) == (
        AMOUNT_MAX,
        TokenTerms(
            **WHO,  # type: ignore[arg-type]
            quota_type=QuotaType.HYBRID,
            unit=Unit.NANO_USD,
            expires_at=END_MS,
            per_minute=6000,
            per_second=7,
            concurrent=3,
            routes=("/openai",),
            models=("gpt-4o*", "*"),
            networks=("10.0.0.0/8", "192.0.2.1/32"),
            refunds=False,
            on_store_outage=OnStoreOutage.ALLOW,
        ),
    )


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 0), (1, 10), (60, 10), (600, 10), (601, 11), (6000, 100)])
def test_a_burst_that_nobody_set_never_keeps_a_minute_from_its_rate(per_minute: int, burst: int) -> None:
    assert created(rate_limit_per_minute=per_minute)[0].per_second == burst


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"quota_type": "count"}, "total_quota: missing, expected a quota with quota_type count"),
        (
            {"total_quota": 5},
            "total_quota: not with quota_type time, expected quota_type count or hybrid",
        ),
        ({"unit": "tokens"}, "unit: not with quota_type time, expected quota_type count or hybrid"),
        (
            {"quota_type": "count", "total_quota": 5, "operation": "add", "days": 3},
            "operation: quota_type count has no time, expected unlimited, or quota_type hybrid",
        ),
        (
            {"quota_type": "hybrid", "total_quota": 5},
            "operation: quota_type hybrid ends at a time, expected add or set, or quota_type count",
        ),
        ({"operation": "add"}, "days: missing, expected an integer from 1 to 36500 with operation add"),
        (
            {"operation": "add", "days": 3, "specific_date": END},
            "specific_date: not with operation add, expected operation set",
        ),
        ({"operation": "set", "days": 3, "specific_date": END}, "days: not with operation set, expected operation add"),
        ({"days": 3}, "days: not with operation unlimited, expected operation add"),
        ({"specific_date": END}, "specific_date: not with operation unlimited, expected operation set"),
        (
            {"operation": "set"},
            "specific_date: missing, expected a time such as 2026-12-31, 2026-12-31 18:30:00 or"
            " 2026-12-31T18:30:00+08:00 with operation set",
        ),
        (
            {"operation": "set", "specific_date": "soon"},
            "specific_date: expected a time such as 2026-12-31, 2026-12-31 18:30:00 or 2026-12-31T18:30:00+08:00",
        ),
        (
            {"operation": "set", "specific_date": "2025-11-21 04:40:00"},
            "specific_date: found a time that has passed, expected one to come",
        ),
        ({"ws_id": " w"}, "ws_id: expected plain text, without blanks around it"),
        ({"ws_id": "w\0"}, "ws_id: expected plain text, without blanks around it"),
        ({"email": "nobody"}, "email: expected an address such as user@example.com"),
        ({"email": "a@b c"}, "email: expected an address such as user@example.com"),
        ({"routes": ["/a", "b"]}, "routes[1]: expected a path that starts with /"),
        (
            {"operation": "set", "specific_date": "9999-12-31T23:59:59-01:00"},
            "specific_date: expected an end behind 1970-01-01 and before the year 10000",
        ),
        (
            {"models": ["gpt*4"]},
            "models[0]: expected a model's name, which may end with *, of at most 255 characters",
        ),
        (
            {"networks": ["10.0.0.1/8"]},
            "networks[0]: expected networks such as 10.0.0.0/8 or 192.0.2.1, without bits set behind the prefix",
        ),
        ({"routes": [f"/{'a' * 400}{number}" for number in range(50)]}, "routes: expected at most 16384 bytes"),
    ],
)
def test_what_a_new_token_cannot_be(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        created(**asked)
    assert str(caught.value) == told
    assert caught.value.field == told.partition(":")[0]


# ---- changes --------------------------------------------------------------------------------------------------------


def test_nothing_asked_is_nothing_changed() -> None:
    for terms in (TIME, COUNT, HYBRID):
        assert changed(terms) == Changed(terms, None, None)


@pytest.mark.parametrize(
    ("terms", "asked", "fields"),
    [
        (TIME, {"operation": "set", "specific_date": END}, {"expires_at": END_MS}),
        (TIME, {"operation": "set", "specific_date": "2020-01-01"}, {"expires_at": 1_577_836_800_000}),
        (HYBRID, {"operation": "add", "days": 2}, {"expires_at": END_MS + 2 * DAY_MS}),
        (msgspec.structs.replace(TIME, expires_at=5), {"operation": "add", "days": 1}, {"expires_at": NOW_MS + DAY_MS}),
        (msgspec.structs.replace(TIME, expires_at=5), {"operation": "unlimited"}, {"expires_at": None}),
        (TIME, {"state": "disabled"}, {"state": State.DISABLED}),
        (msgspec.structs.replace(TIME, state=State.DISABLED), {"state": "active"}, {"state": State.ACTIVE}),
        (COUNT, {"unit": "requests", "quota_type": "count", "refunds": False}, {"refunds": False}),
        (COUNT, {"on_store_outage": "allow", "concurrent": 4}, {"on_store_outage": "allow", "concurrent": 4}),
        (msgspec.structs.replace(TIME, routes=("/a",)), {"routes": []}, {"routes": ()}),
        (TIME, {"models": ["m"], "networks": ["::1"]}, {"models": ("m",), "networks": ("::1/128",)}),
        (TIME, {"rate_limit_per_minute": 6000}, {"per_minute": 6000, "per_second": 100}),
        (
            msgspec.structs.replace(TIME, per_minute=60, per_second=10),
            {"rate_limit_per_minute": 6000},
            {"per_minute": 6000, "per_second": 100},
        ),
        (
            msgspec.structs.replace(TIME, per_minute=60, per_second=3),
            {"rate_limit_per_minute": 6000},
            {"per_minute": 6000, "per_second": 3},
        ),
        (
            msgspec.structs.replace(TIME, per_minute=60, per_second=10),
            {"rate_limit_per_minute": 0, "rate_limit_burst": 5},
            {"per_minute": 0, "per_second": 5},
        ),
    ],
)
def test_what_is_given_is_changed(terms: TokenTerms, asked: dict[str, Any], fields: dict[str, Any]) -> None:
    assert changed(terms, **asked) == Changed(msgspec.structs.replace(terms, **fields), None, None)


@pytest.mark.parametrize(
    ("operation", "amount"),
    [("add", 1), ("add", AMOUNT_MAX), ("set", 0), ("set", 5), ("reset", None), ("reset", 1)],
)
def test_a_quota_that_is_there_is_for_its_counter_to_change(operation: str, amount: int | None) -> None:
    given = {"quota_operation": operation, "quota_amount": amount, "operation": "unlimited"}
    assert changed(COUNT, **given) == Changed(COUNT, None, QuotaChange(QuotaOperation(operation), amount))


@pytest.mark.parametrize("operation", QuotaOperation)
def test_a_token_of_time_alone_gets_its_first_quota_with_another_type(operation: QuotaOperation) -> None:
    asked = {"quota_type": "count", "quota_operation": operation, "quota_amount": 5, "unit": "tokens"}
    assert changed(TIME, **asked) == Changed(msgspec.structs.replace(COUNT, unit=Unit.TOKENS), 5, None)
    assert changed(TIME, quota_type="count", quota_operation=operation, total_quota=7) == Changed(COUNT, 7, None)
    asked = {"operation": "set", "specific_date": END, "quota_type": "hybrid", "quota_operation": operation}
    assert changed(TIME, **asked, quota_amount=5) == Changed(HYBRID, 5, None)


def test_a_quota_keeps_its_counter_when_time_comes_to_it_or_goes() -> None:
    asked = {"quota_type": "hybrid", "operation": "set", "specific_date": END, "quota_operation": "reset"}
    assert changed(COUNT, **asked) == Changed(HYBRID, None, QuotaChange(QuotaOperation.RESET, None))
    asked = {"quota_type": "count", "operation": "unlimited", "quota_operation": "add"}
    assert changed(HYBRID, **asked, quota_amount=5) == Changed(COUNT, None, QuotaChange(QuotaOperation.ADD, 5))


@pytest.mark.parametrize(
    ("terms", "asked", "told"),
    [
        (COUNT, {"quota_amount": 5}, "quota_amount: not with no quota_operation, expected one of add, set, reset"),
        (COUNT, {"total_quota": 5}, "total_quota: not with no quota_operation, expected quota_operation and quota_"),
        (COUNT, {"quota_operation": "add", "total_quota": 5}, "total_quota: not with a quota that is there, expected"),
        (COUNT, {"quota_operation": "add"}, "quota_amount: missing, expected an amount with quota_operation add"),
        (COUNT, {"quota_operation": "set"}, "quota_amount: missing, expected an amount with quota_operation set"),
        (COUNT, {"quota_operation": "add", "quota_amount": 0}, "quota_amount: expected an integer from 1 to 9007199"),
        (COUNT, {"quota_operation": "reset", "quota_amount": 0}, "quota_amount: expected an integer from 1 to 90071"),
        (COUNT, {"quota_type": "hybrid"}, "quota_operation: missing, expected one of add, set, reset with another"),
        (COUNT, {"quota_type": "hybrid", "quota_operation": "reset"}, "operation: quota_type hybrid ends at a time"),
        (COUNT, {"quota_type": "time"}, "quota_type: a token with a quota keeps it, expected count or hybrid, or"),
        (COUNT, {"quota_type": "time", "quota_operation": "reset"}, "quota_type: a token with a quota keeps it"),
        (COUNT, {"operation": "set", "specific_date": END}, "operation: quota_type count has no time, expected unl"),
        (COUNT, {"unit": "tokens"}, "unit: a quota is counted in one unit to its end, expected requests"),
        (HYBRID, {"operation": "unlimited"}, "operation: quota_type hybrid ends at a time, expected add or set, or"),
        (TIME, {"unit": "tokens"}, "unit: nothing is counted with quota_type time, expected quota_type count or hy"),
        (TIME, {"quota_operation": "add", "quota_amount": 5}, "quota_operation: the token has no quota, expected q"),
        (TIME, {"quota_type": "count", "quota_operation": "reset"}, "quota_amount: expected an integer from 1 to 9"),
        (
            TIME,
            {"quota_type": "count", "quota_operation": "set", "quota_amount": 0},
            "quota_amount: expected an integer from 1 to 9007199254740991, the first quota",
        ),
        (TIME, {"operation": "add", "days": 3}, "operation: the token has no end to add days to, expected set"),
        (TIME, {"operation": "set", "specific_date": "1970-01-01"}, "specific_date: expected an end behind 1970-01-01"),
        (FAR, {"operation": "add", "days": 1}, "days: expected an end behind 1970-01-01 and before the year 10000"),
        (TIME, {"days": 3}, "days: not with no operation, expected operation add"),
        (TIME, {"specific_date": END}, "specific_date: not with no operation, expected operation set"),
    ],
)
def test_what_a_token_cannot_become(terms: TokenTerms, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        changed(terms, **asked)
    assert str(caught.value).startswith(told)
    assert caught.value.field == told.partition(":")[0]


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "operation": st.sampled_from(Operation),
        "days": st.integers(1, 36_500),
        "specific_date": st.sampled_from([END, "2020-01-01", "never"]),
        "quota_type": st.sampled_from(QuotaType),
        "total_quota": st.integers(1, AMOUNT_MAX),
        "quota_operation": st.sampled_from(QuotaOperation),
        "quota_amount": st.integers(0, AMOUNT_MAX),
        "unit": st.sampled_from(Unit),
        "state": st.sampled_from(["active", "disabled"]),
        "rate_limit_per_minute": st.integers(0, 10**9),
    },
)


@given(st.sampled_from([TIME, COUNT, HYBRID, msgspec.structs.replace(TIME, expires_at=END_MS)]), ASKED)
def test_whatever_is_asked_a_token_stays_in_order(terms: TokenTerms, asked: dict[str, Any]) -> None:
    """It counts something or only time ends it; one counter is never two; a type says what ends it."""
    try:
        after, total, quota = changed(terms, **asked)
    except InvalidToken:
        return
    assert (after.unit is None) == (after.quota_type is QuotaType.TIME)
    assert (total is not None) == (terms.unit is None and after.unit is not None)
    assert terms.unit in (None, after.unit)
    assert quota is None or terms.unit is not None
    assert after.quota_type is not QuotaType.COUNT or after.expires_at is None
    assert after.quota_type is not QuotaType.HYBRID or after.expires_at is not None
    assert (after.ws_id, after.email) == (terms.ws_id, terms.email)
