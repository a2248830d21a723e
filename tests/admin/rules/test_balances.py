"""Balance queries: what is asked, what answers say, and what was spent between two of them."""

import json
from pathlib import PurePath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.balances import NUMBER_MAX, PRESETS, Reading, call, pointed_at, queries_for, read, spent
from loadtests.fake_provider_balances import CHAT_USAGE, SUBSCRIPTION_USAGE, Allowance, usage_of
from proxy.config import BalanceMethod, BalancePreset, BalanceQuery, KeyPool, UpstreamTls
from proxy.sources.structs import Reader
from proxy.sources.yaml_document import Document

SECRET = "sk-a/b?c+d"
FACTORY = PRESETS[BalancePreset.FACTORY]


def reading(answer: Any, **query: Any) -> Reading | None:
    return read(BalanceQuery(**query), json.dumps(answer).encode())


@pytest.mark.parametrize(("place", "path"), [(0, SUBSCRIPTION_USAGE), (1, CHAT_USAGE)])
def test_factory_is_asked_as_it_documents(place: int, path: str) -> None:
    asked = call(FACTORY[place], "fk-one")
    assert asked.url.endswith(path)
    assert asked.fields["authorization"] == "Bearer fk-one"
    assert asked.tls == UpstreamTls()
    assert (asked.method, asked.body) == [("POST", b'{"useCache":true}'), ("GET", None)][place]
    answer = json.dumps(usage_of(Allowance(7, 20, 1_000_000_000_000, 2_000_000_000_000))).encode()
    assert read(FACTORY[place], answer) == Reading(7, 20, 1_000_000_000_000, 2_000_000_000_000)


def test_presets_are_what_a_file_could_say() -> None:
    for preset, queries in PRESETS.items():
        spec = {f"{preset}-{number}": msgspec.to_builtins(query) for number, query in enumerate(queries)}
        document = Document({"key_pool": {"balance_queries": spec}}, {})
        pool = KeyPool(**Reader("", document, PurePath()).config()["key_pool"])
        assert list(pool.balance_queries.values()) == list(queries)


def test_the_key_stands_where_it_is_wanted_and_nowhere_in_what_is_shown() -> None:
    query = BalanceQuery(
        url="https://x.test:8443/{key}/usage?token={key}",
        method=BalanceMethod.POST,
        headers={"x-key": "{key}", "x-plain": "yes"},
        body={"key": "{key}", "deep": [{"also": "a {key} b"}], "number": 1, "none": None},
        used="/u",
    )
    asked = call(query, SECRET)
    assert asked.url == "https://x.test:8443/sk-a%2Fb%3Fc%2Bd/usage?token=sk-a%2Fb%3Fc%2Bd"
    assert asked.fields == {"x-key": SECRET, "x-plain": "yes", "content-type": "application/json"}
    assert json.loads(asked.body or b"") == {
        "key": SECRET,
        "deep": [{"also": f"a {SECRET} b"}],
        "number": 1,
        "none": None,
    }
    assert asked.target == "https://x.test:8443"
    assert "sk-a" not in repr(asked)


def test_a_quote_in_a_key_does_not_end_its_text() -> None:
    query = BalanceQuery(url="http://x.test", body={"key": "{key}"}, used="")
    assert json.loads(call(query, 'a","b":"c').body or b"") == {"key": 'a","b":"c'}


def test_a_key_is_asked_about_by_the_first_query_for_it() -> None:
    of_all = BalanceQuery(url="http://all.test", used="/u")
    of_group = BalanceQuery(url="http://group.test", used="/u", pool_groups=("main",))
    preset = BalanceQuery(preset=BalancePreset.FACTORY)
    moved = BalanceQuery(preset=BalancePreset.FACTORY, providers=("unknown",))
    assert queries_for({}, "factory", "main") == ()
    assert queries_for({"a": preset}, "factory", "any") == FACTORY
    assert queries_for({"a": preset}, "openai", "any") == ()
    assert queries_for({"a": moved}, "unknown", "any") == FACTORY
    assert queries_for({"a": moved}, "factory", "any") == ()
    assert queries_for({"b": of_all, "a": of_group}, "openai", "main") == (of_group,)
    assert queries_for({"b": of_all, "a": of_group}, "openai", "spare") == (of_all,)
    assert queries_for({"b": of_group, "a": of_all}, "openai", "main") == (of_all,)


@pytest.mark.parametrize(
    ("answer", "query", "expected"),
    [
        ({"u": 5, "t": 20}, {"used": "/u", "total": "/t"}, (5, 20)),
        ({"u": 5, "r": 15}, {"used": "/u", "remaining": "/r"}, (5, 20)),
        ({"t": 20, "r": 15}, {"total": "/t", "remaining": "/r"}, (5, 20)),
        ({"r": 15}, {"remaining": "/r"}, (None, 15)),
        ({"r": -3}, {"remaining": "/r"}, (None, -3)),
        ({"u": 5}, {"used": "/u"}, (5, None)),
        ({"u": 5, "t": None}, {"used": "/u", "total": "/t"}, (5, None)),
        ({"u": 25, "r": -5}, {"used": "/u", "remaining": "/r"}, (25, 20)),
        ({"u": 0, "t": 0}, {"used": "/u", "total": "/t"}, (0, 0)),
        ({"u": "1.5", "t": 2.25}, {"used": "/u", "total": "/t", "scale": 1000.0}, (1500, 2250)),
        ([{"u": [1, 2]}], {"used": "/0/u/1"}, (2, None)),
        (9_876_543_210_123, {"used": ""}, (9_876_543_210_123, None)),
        ({"u": 5, "t": 2**63 - 1}, {"used": "/u", "total": "/t"}, (5, None)),
    ],
)
def test_an_answer_is_read(answer: Any, query: dict[str, Any], expected: tuple[int | None, int | None]) -> None:
    assert reading(answer, **query) == Reading(*expected)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"u": None},
        {"u": "many"},
        {"u": True},
        {"u": {}},
        {"u": [1]},
        {"t": 20},
        {"u": 1e300},
        {"u": 10**13 + 1},
        {"u": "nan"},
        {"u": "inf"},
    ],
)
def test_an_answer_without_a_figure_is_none(answer: Any) -> None:
    assert reading(answer, used="/u", total="/t") is None


@pytest.mark.parametrize("scale", [1.0, 0.01, 2.0])
def test_a_number_beyond_all_is_not_known(scale: float) -> None:
    query = BalanceQuery(used="/u", total="/t", scale=scale)
    assert read(query, b'{"u": 100, "t": %b}' % (b"9" * 400)) == Reading(round(100 * scale), None)


def test_a_total_alone_says_nothing() -> None:
    assert reading({"t": 20, "r": None}, total="/t", remaining="/r") is None


@given(st.binary())
def test_whatever_comes_is_no_error(answer: bytes) -> None:
    read(FACTORY[0], answer)


@given(st.recursive(st.none() | st.floats() | st.text() | st.integers(), lambda inner: st.dictionaries(
    st.sampled_from(["usage", "standard", "orgTotalTokensUsed", "totalAllowance", "startDate", "endDate"]), inner)
))  # fmt: skip
def test_whatever_is_found_fits_into_sql(answer: Any) -> None:
    found = read(FACTORY[0], msgspec.json.encode(answer))
    assert found is None or all(number is None or abs(number) <= 1000 * NUMBER_MAX for number in found)


def test_pointers_are_those_of_the_rfc() -> None:
    """RFC 6901 section 5."""
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "m~n": 8, " ": 7}
    pairs = {"": document, "/foo": ["bar", "baz"], "/foo/0": "bar", "/": 0, "/a~1b": 1, "/c%d": 2, "/e^f": 3}
    pairs |= {"/ ": 7, "/m~0n": 8}
    assert {pointer: pointed_at(document, pointer) for pointer in pairs} == pairs
    nowhere = ("/bar", "/foo/2", "/foo/-", "/foo/00", "/foo/-1", "/foo/x", "/foo/0/1", "/foo/99999999999")
    assert [pointed_at(document, pointer) for pointer in nowhere] == [None] * len(nowhere)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_700_000_000_000, 1_700_000_000_000),
        (1_700_000_000, 1_700_000_000_000),
        ("1700000000", None),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500),
        ("2023-11-14", 1_699_920_000_000),
        ("2023-13-14", None),
        ("soon", None),
        ("\ud800", None),
        (0, None),
        (-5, None),
        (None, None),
        (True, None),
        ({}, None),
    ],
)
def test_times_are_taken_as_providers_write_them(value: Any, expected: int | None) -> None:
    document = json.dumps({"u": 1, "b": value}).encode()
    if value == "\ud800":
        assert read(BalanceQuery(used="/u", period_begin="/b"), document) is None
        return
    found = read(BalanceQuery(used="/u", period_begin="/b", period_end="/b"), document)
    assert found == Reading(1, None, expected, expected)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Reading(None, None), Reading(9, 20), 0),
        (Reading(5, 20), Reading(9, 20), 4),
        (Reading(5, 20), Reading(5, 20), 0),
        (Reading(9, 20), Reading(2, 20), 2),
        (Reading(9, 20, 1), Reading(8, 20, 1), 0),
        (Reading(9, 20, 1), Reading(2, 20, 2), 2),
        (Reading(9, 20, 1), Reading(12, 20, 2), 12),
        (Reading(9, 20), Reading(12, 20, 2), 3),
        (Reading(9, 20, 1), Reading(-4, 20, 2), 0),
        (Reading(None, 20), Reading(None, 17), 3),
        (Reading(None, 17), Reading(None, 37), 0),
        (Reading(5, 20), Reading(None, 15), 0),
        (Reading(None, 20), Reading(5, 20), 0),
    ],
)
def test_what_was_spent_between_two_readings(before: Reading, after: Reading, expected: int) -> None:
    assert spent(before, after) == expected


def test_what_remains() -> None:
    assert [Reading(5, 20).remaining, Reading(None, 20).remaining, Reading(5, None).remaining] == [15, 20, None]
