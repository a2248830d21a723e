"""When bans end: who comes up first, and what is left out since it is no longer true."""

import math

from hypothesis import given
from hypothesis import strategies as st

from proxy.key_pool.ban_ends import LOOKED_AT_MAX, BanEnds

HOME = {"a": "main", "b": "main", "c": "spare"}


def test_the_first_end_of_a_group_and_model_and_of_all() -> None:
    ends = BanEnds(HOME)
    assert (ends.next_s, ends.first_s("main", "")) == (math.inf, None)
    ends.note("main", ("a", ""), 30.0)
    ends.note("main", ("b", "gpt"), 20.0)
    ends.note("spare", ("c", ""), 10.0)
    assert ends.next_s == 10.0
    assert (ends.first_s("main", ""), ends.first_s("main", "gpt"), ends.first_s("spare", "")) == (30.0, 20.0, 10.0)
    assert ends.first_s("spare", "gpt") is None


def test_what_is_no_longer_true_does_not_come_up() -> None:
    home = dict(HOME)
    ends = BanEnds(home)
    for name, end_s in (("a", 10.0), ("b", 20.0)):
        ends.note("main", (name, ""), end_s)
    ends.note("main", ("a", ""), 40.0)
    assert list(ends.due("main", "", 30.0)) == ["b"], "the other one's ban has become longer"
    ends.forget(("b", ""))
    assert list(ends.due("main", "", 30.0)) == []
    ends.find_next()
    assert ends.next_s == 40.0
    home["a"] = "spare"
    assert ends.first_s("main", "") is None
    del home["a"]
    ends.find_next()
    assert ends.next_s == math.inf, "nobody is there"


@given(st.lists(st.floats(0, 100), max_size=3 * LOOKED_AT_MAX), st.floats(0, 100))
def test_those_whose_time_has_come_come_up_but_not_all_of_very_many(times_s: list[float], now_s: float) -> None:
    home = {str(number): "main" for number in range(len(times_s))}
    ends = BanEnds(home)
    for name, end_s in zip(home, times_s, strict=True):
        ends.note("main", (name, ""), end_s)
    due = {name for name, end_s in zip(home, times_s, strict=True) if end_s <= now_s}
    found = list(ends.due("main", "", now_s))
    assert set(found) <= due
    assert len(set(found)) == len(found)
    assert set(found) == due or len(due) >= LOOKED_AT_MAX // 2 <= len(found) <= LOOKED_AT_MAX
