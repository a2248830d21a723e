"""Every algorithm through the same life: candidates come, are used, change and go, in two selectors at once."""

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proxy.config import Algorithm, KeyPool
from proxy.rules.recent_uses import SLOTS
from proxy.rules.selection import SELECTORS, Candidate, Selector, selector
from proxy.rules.selectors_weighted import Weighted
from tests.candidates import NOW_S, candidate

WINDOW_S = 20.0
SLOT_S = WINDOW_S / SLOTS
names = st.integers(0, 7)
which = st.integers(0, 1)
tokens = st.none() | st.integers(0, 50)


class Life(RuleBasedStateMachine):
    """Two selectors that share candidates, and beside each what a list of all says."""

    algorithm: Algorithm

    @initialize(seed=st.integers(0, 999))
    def begin(self, seed: int) -> None:
        made = KeyPool(algorithm=self.algorithm, window_s=WINDOW_S)
        self.source = random.Random(seed)
        self.candidates = [candidate(str(index)) for index in range(8)]
        self.selectors = (selector(made), selector(made))
        self.here: tuple[dict[Candidate, None], dict[Candidate, None]] = ({}, {})
        self.uses: list[tuple[Candidate, int]] = []
        self.now_s = NOW_S

    @rule(which=which, name=names)
    def add(self, which: int, name: int) -> None:
        self.selectors[which].add(self.candidates[name])
        self.here[which].setdefault(self.candidates[name])

    @rule(which=which, name=names)
    def remove(self, which: int, name: int) -> None:
        self.selectors[which].remove(self.candidates[name])
        self.here[which].pop(self.candidates[name], None)

    @rule(later_s=st.sampled_from([0.1, 1.0, SLOT_S, WINDOW_S, 5 * 3600.0]))
    def wait(self, later_s: float) -> None:
        self.now_s += later_s

    @rule(name=names, total=tokens, used=tokens)
    def publish(self, name: int, total: int | None, used: int | None) -> None:
        one = self.candidates[name]
        one.tokens_total, one.tokens_used = total, used
        self._tell(one)

    @rule(which=which, times=st.integers(1, 12), succeeds=st.booleans(), affinity=st.none() | st.binary(max_size=2))
    def choose_and_use(self, which: int, times: int, succeeds: bool, affinity: bytes | None) -> None:  # noqa: FBT001
        for _ in range(times):
            one = self._choose(which, affinity)
            if one is None:
                return
            one.last_used_s = self.now_s
            one.requests += 1
            one.successes += succeeds
            one.tokens_used = (one.tokens_used or 0) + 1
            self.uses.append((one, int(self.now_s // SLOT_S)))
            self._tell(one)

    def _tell(self, one: Candidate) -> None:
        for each in self.selectors:
            each.changed(one)

    def _choose(self, which: int, affinity: bytes | None) -> Candidate | None:
        one = self.selectors[which].choose(self.now_s, self.source.random, affinity)
        here = self.here[which]
        if one is None:
            assert not here
            return None
        assert one in here
        RULES.get(self.algorithm, anybody)(self, which, one)
        if self.algorithm is Algorithm.ROUND_ROBIN:
            del here[one]
            here[one] = None
        if self.algorithm is Algorithm.CACHE_AFFINITY and affinity is not None:
            assert self.selectors[which].choose(self.now_s, self.source.random, affinity) is one
        return one

    def recent_uses(self, one: Candidate) -> int:
        since = int(self.now_s // SLOT_S) - SLOTS
        return sum(who is one and slot >= since for who, slot in self.uses)

    @invariant()
    def each_selector_has_what_was_put_into_it(self) -> None:
        for each, here in zip(self.selectors, self.here, strict=True):
            assert len(each) == len(here)
            assert [one for one in self.candidates if one in each] == [one for one in self.candidates if one in here]

    def teardown(self) -> None:
        """Nobody has been lost: who is chosen and taken out, until nobody is left, are all."""
        for each, here in zip(getattr(self, "selectors", ()), getattr(self, "here", ()), strict=True):
            found = set()
            while (one := each.choose(self.now_s, self.source.random, b"key")) is not None:
                each.remove(one)
                found.add(one)
            assert found == here.keys()
            assert len(each) == 0


def least(figure: Callable[[Life, Candidate], float]) -> Callable[[Life, int, Candidate], None]:
    def check(life: Life, which: int, one: Candidate) -> None:
        assert figure(life, one) == min(figure(life, other) for other in life.here[which])

    return check


def minus_remaining(_: Life, one: Candidate) -> float:
    if one.tokens_total is None:
        return -0.5
    return float((one.tokens_used or 0) - one.tokens_total)


def next_in_order(life: Life, which: int, one: Candidate) -> None:
    assert one is next(iter(life.here[which]))


def someone_with_odds(life: Life, which: int, one: Candidate) -> None:
    each = life.selectors[which]
    assert isinstance(each, Weighted)
    assert each.weight(one, life.now_s) > 0 or not any(each.weight(other, life.now_s) for other in life.here[which])


def anybody(life: Life, which: int, one: Candidate) -> None:
    assert one in life.here[which]


RULES: Mapping[Algorithm, Callable[[Life, int, Candidate], None]] = {
    Algorithm.ROUND_ROBIN: next_in_order,
    Algorithm.LEAST_USED: least(lambda _, one: one.requests),
    Algorithm.LEAST_TOKEN_USED: least(lambda _, one: one.tokens_used or 0),
    Algorithm.MAX_REMAINING: least(minus_remaining),
    Algorithm.TIME_WINDOW: least(Life.recent_uses),
    Algorithm.WEIGHTED_SCORE: someone_with_odds,
    Algorithm.WEIGHTED_USAGE: someone_with_odds,
    Algorithm.QUOTA_AWARE: someone_with_odds,
}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_none_that_is_absent_is_ever_chosen_and_none_that_is_there_is_lost(algorithm: Algorithm) -> None:
    life = type("Life", (Life,), {"algorithm": algorithm})
    run_state_machine_as_test(life, settings=settings(max_examples=20, stateful_step_count=30))


def test_each_algorithm_has_its_selector() -> None:
    assert set(SELECTORS) == set(Algorithm)
    assert len(set(SELECTORS.values())) == len(Algorithm)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_settings_name_the_algorithm(algorithm: Algorithm) -> None:
    assert type(selector(KeyPool(algorithm=algorithm))) is SELECTORS[algorithm]


def counted(source: Callable[[], float]) -> tuple[list[float], Callable[[], float]]:
    drawn: list[float] = []

    def random01() -> float:
        drawn.append(source())
        return drawn[-1]

    return drawn, random01


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_choice_among_many_draws_no_more_numbers_than_one_among_few(algorithm: Algorithm) -> None:
    """A clock would tell little on a shared machine; `loadtests.choice_cost` has the times."""
    drawn, random01 = counted(random.Random(1).random)
    figures = random.Random(2)
    made: Selector = selector(KeyPool(algorithm=algorithm))
    for index in range(5000):
        used = figures.randrange(1000)
        made.add(candidate(str(index), used, used // 2, NOW_S - used, tokens_used=used, tokens_total=1000))
    for _ in range(500):
        made.choose(NOW_S, random01, None)
    assert len(drawn) <= 500 * 5
