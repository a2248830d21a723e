"""A plan holds as long as it says, from the first request that meets it."""

import pytest

from loadtests.fake_provider_keys import GOOD, Behaviour, Does, Keys, Met


@pytest.fixture(name="keys")
def fixture_keys() -> Keys:
    return Keys()


def met(keys: Keys, now_s: float, model: str = "m") -> Does | None:
    found = keys.meet("k", model, now_s)
    return None if found is None else found.behaviour.does


def test_a_key_that_nobody_was_given_is_unknown_until_it_is(keys: Keys) -> None:
    assert keys.meet("k", "m", 0) is None
    keys.plan("k", [])
    assert keys.meet("k", "m", 0) == Met(GOOD)
    keys.forget("k")
    assert keys.meet("k", "m", 0) is None


def test_a_time_begins_with_the_first_request(keys: Keys) -> None:
    keys.plan("k", [Behaviour(Does.RATE_LIMITED, for_s=2)])
    first, later = keys.meet("k", "m", 100), keys.meet("k", "m", 101.5)
    assert (first and first.left_s, later and later.left_s) == (2, 0.5)
    assert met(keys, 101.99) is Does.RATE_LIMITED
    assert met(keys, 102) is Does.OK


def test_the_next_part_holds_when_one_is_over(keys: Keys) -> None:
    keys.plan("k", [Behaviour(Does.RATE_LIMITED, for_s=1), Behaviour(delay_s=3, times=1), Behaviour(Does.FAILED)])
    assert met(keys, 0) is Does.RATE_LIMITED
    assert keys.meet("k", "m", 1) == Met(Behaviour(delay_s=3, times=1))
    assert [met(keys, 1), met(keys, 1000)] == [Does.FAILED, Does.FAILED]


def test_a_part_of_one_model_leaves_the_others_alone(keys: Keys) -> None:
    keys.plan("k", [Behaviour(Does.NO_MODEL, model="large")])
    assert [met(keys, 0, "large"), met(keys, 0, "small")] == [Does.NO_MODEL, Does.OK]
