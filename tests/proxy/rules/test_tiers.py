"""Groups by priority: the rows of the table, and what holds of all of them."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import KeyPool, PoolGroup
from proxy.rules.credentials import DEFAULT_GROUP
from proxy.rules.tiers import group_of, tiers, unknown_groups

GROUPS = {
    "gold": PoolGroup(priority=1),
    "silver": PoolGroup(priority=2),
    "argent": PoolGroup(priority=2),
    "lead": PoolGroup(priority=3),
}
ALL = (*GROUPS, DEFAULT_GROUP)

FLAT = KeyPool()
FALLBACK = KeyPool(multi_tier=True)
STRICT = KeyPool(multi_tier=True, auto_fallback=False, strict_mode=True)
STRICT_AND_FALLBACK = KeyPool(multi_tier=True, strict_mode=True)
FIRST = KeyPool(multi_tier=True, auto_fallback=False)


@pytest.mark.parametrize(
    ("settings", "used", "expected"),
    [
        (FLAT, ALL, [("argent", "default", "gold", "lead", "silver")]),
        (FLAT, ("lead",), [("lead",)]),
        (FALLBACK, ALL, [("gold",), ("argent", "silver"), ("lead",), ("default",)]),
        (FALLBACK, ("lead", "silver"), [("silver",), ("lead",)]),
        (FALLBACK, ("default",), [("default",)]),
        (STRICT, ALL, [("gold",)]),
        (STRICT, ("default", "lead", "silver"), [("silver",)]),
        (STRICT, ("default",), [("default",)]),
        (STRICT_AND_FALLBACK, ALL, [("gold",)]),
        (FIRST, ALL, [("gold",), ("default",)]),
        (FIRST, ("default", "silver", "argent"), [("argent", "silver"), ("default",)]),
        (FIRST, ("gold", "lead"), [("gold",)]),
        (FIRST, ("default",), [("default",)]),
    ],
)
def test_the_table(settings: KeyPool, used: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    assert tiers(GROUPS, settings, (), used) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (FALLBACK, [("gold",), ("argent", "default", "silver"), ("lead",)]),
        (STRICT, [("gold",)]),
        (FIRST, [("gold",), ("default",)]),
    ],
)
def test_default_with_a_priority_of_its_own_has_its_place_by_it(
    settings: KeyPool, expected: list[tuple[str, ...]]
) -> None:
    assert tiers({**GROUPS, "default": PoolGroup(priority=2)}, settings, (), ALL) == expected


def test_default_in_the_first_tier_does_not_come_twice() -> None:
    groups = {**GROUPS, "default": PoolGroup(priority=1)}
    assert tiers(groups, FIRST, (), ALL) == [("default", "gold")]


def test_a_route_that_names_groups_has_no_others_not_even_default() -> None:
    assert tiers(GROUPS, FALLBACK, ("lead", "gold"), ALL) == [("gold",), ("lead",)]
    assert tiers(GROUPS, FIRST, ("lead", "gold"), ALL) == [("gold",)]
    assert tiers(GROUPS, FLAT, ("lead", "gold"), ALL) == [("gold", "lead")]
    assert tiers(GROUPS, FIRST, ("lead", "default"), ALL) == [("lead",), ("default",)]
    assert tiers(GROUPS, STRICT, ("lead", "default"), ("gold",)) == []
    assert tiers(GROUPS, FALLBACK, ("gone",), ALL) == []


def test_a_credential_of_a_group_that_is_gone_is_of_default() -> None:
    assert group_of("gone", GROUPS) == DEFAULT_GROUP
    assert group_of("gold", GROUPS) == "gold"
    assert tiers(GROUPS, FALLBACK, (), ("gone", "lead")) == [("lead",), ("default",)]
    assert tiers({}, FALLBACK, (), ("gone", "lost")) == [("default",)]


def test_without_credentials_there_is_no_tier() -> None:
    assert tiers(GROUPS, FLAT, (), ()) == []
    assert tiers(GROUPS, FALLBACK, (), ()) == []


ids = st.sampled_from(["a", "b", "c", "d", DEFAULT_GROUP])


def test_default_is_always_a_group() -> None:
    assert unknown_groups(("default", "a", "b"), {"a": PoolGroup()}) == ["b"]


@given(
    st.dictionaries(ids, st.builds(PoolGroup, priority=st.integers(0, 3))),
    st.builds(KeyPool, multi_tier=st.booleans(), auto_fallback=st.booleans(), strict_mode=st.booleans()),
    st.lists(ids),
    st.sets(ids),
)
def test_every_tier_holds_credentials_once_and_priorities_rise(
    groups: Mapping[str, PoolGroup], settings: KeyPool, allowed: list[str], used: set[str]
) -> None:
    found = tiers(groups, settings, allowed, used)
    usable = {group_of(group, groups) for group in used}.intersection(allowed or ids_of(groups))
    flat = [group for tier in found for group in tier]
    assert len(flat) == len(set(flat))
    assert all(found)
    assert set(flat) <= usable
    assert bool(found) is bool(usable)
    if not settings.multi_tier:
        assert set(flat) == usable
        return
    priorities = [{groups[group].priority if group in groups else 4 for group in tier} for tier in found]
    if settings.auto_fallback and not settings.strict_mode:
        assert set(flat) == usable
    if settings.auto_fallback or settings.strict_mode:
        assert all(len(numbers) == 1 for numbers in priorities)
    assert [min(numbers) for numbers in priorities] == sorted({min(numbers) for numbers in priorities})


def ids_of(groups: Mapping[str, PoolGroup]) -> set[str]:
    return {*groups, DEFAULT_GROUP}
