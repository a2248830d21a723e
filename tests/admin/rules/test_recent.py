"""The rate of just now."""

from admin.rules.recent import WINDOW_S, Recent


def test_what_is_older_than_the_window_does_not_count() -> None:
    recent = Recent()
    assert recent.per_second(0.0) == 0
    recent.add(100.0, 30)
    recent.add(105.0, 20)
    assert recent.per_second(105.0) == 5
    assert recent.per_second(100.0 + WINDOW_S) == 2
    assert recent.per_second(105.0 + WINDOW_S) == 0


def test_what_is_caught_up_on_late_is_no_peak() -> None:
    recent = Recent()
    recent.add(1000.0, 10)
    for age_s in range(1, 1000):
        recent.add(1000.0 - age_s, 10)
    assert recent.per_second(1000.0) == 10
