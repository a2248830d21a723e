"""When a child that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from admin.rules.restarts import DEATHS_MAX, FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S, Restarts


def test_the_delays_double_up_to_the_longest_and_then_it_is_given_up() -> None:
    restarts = Restarts()
    delays = [restarts.delay_s(0.0) for _ in range(DEATHS_MAX)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, None]
    assert (FIRST_DELAY_S, LONGEST_DELAY_S) == (0.5, 15.0)


def test_a_steady_life_makes_the_earlier_deaths_forgotten() -> None:
    restarts = Restarts()
    for _ in range(DEATHS_MAX - 1):
        restarts.delay_s(STEADY_S - 0.1)
    assert restarts.delay_s(STEADY_S) == FIRST_DELAY_S
    assert restarts.delay_s(0.0) == 2 * FIRST_DELAY_S


def test_what_is_never_given_up_waits_as_long_and_counts_as_a_death() -> None:
    restarts = Restarts()
    delays = [restarts.patient_delay_s(0.0) for _ in range(2000)]
    assert delays[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0]
    assert set(delays[6:]) == {LONGEST_DELAY_S}
    assert restarts.patient_delay_s(STEADY_S) == FIRST_DELAY_S
    assert restarts.delay_s(0.0) == 2 * FIRST_DELAY_S


@given(st.lists(st.floats(min_value=0, max_value=2 * STEADY_S)))
def test_it_is_given_up_exactly_after_so_many_unsteady_deaths_in_a_row(lives_s: list[float]) -> None:
    restarts = Restarts()
    deaths = 0
    for lived_s in lives_s:
        deaths = 1 if lived_s >= STEADY_S else deaths + 1
        delay_s = restarts.delay_s(lived_s)
        assert (delay_s is None) == (deaths >= DEATHS_MAX)
        assert delay_s is None or FIRST_DELAY_S <= delay_s <= LONGEST_DELAY_S


def test_one_child_knows_nothing_of_another_ones_deaths() -> None:
    unlucky, fresh = Restarts(), Restarts()
    for _ in range(DEATHS_MAX):
        unlucky.delay_s(0.0)
    assert fresh.delay_s(0.0) == FIRST_DELAY_S
