"""How often a wrong token may be tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules import attempts
from proxy.rules.attempts import IN_ALL, LOCKED_S_MAX, PER_ADDRESS, REMEMBERED, REST_S, WINDOW_S, Attempts, source_of

HOME = "192.0.2.1"


def fail(tried: Attempts, address: str, times: int, now_s: float) -> None:
    for _ in range(times):
        tried.failed(address, now_s)


def test_ten_failures_lock_an_address_out_for_a_minute() -> None:
    tried = Attempts()
    fail(tried, HOME, PER_ADDRESS - 1, 0)
    assert tried.wait_s(HOME, 0) == 0
    tried.failed(HOME, 0)
    assert tried.wait_s(HOME, 0) == WINDOW_S
    assert tried.wait_s(HOME, 59) == 1
    assert tried.wait_s(HOME, 60) == 0
    assert tried.wait_s("192.0.2.2", 0) == 0


def test_failures_that_are_a_minute_old_count_no_longer() -> None:
    tried = Attempts()
    fail(tried, HOME, PER_ADDRESS - 1, 0)
    tried.failed(HOME, 60)
    assert tried.wait_s(HOME, 60) == 0


def test_each_lockout_is_twice_as_long_up_to_a_bound() -> None:
    tried = Attempts()
    now_s, waits_s = 0.0, []
    for _ in range(6):
        fail(tried, HOME, PER_ADDRESS, now_s)
        waits_s.append(tried.wait_s(HOME, now_s))
        now_s += waits_s[-1]
    assert waits_s == [60, 120, 240, 480, LOCKED_S_MAX, LOCKED_S_MAX]
    now_s += REST_S
    fail(tried, HOME, PER_ADDRESS, now_s)
    assert tried.wait_s(HOME, now_s) == 60


def test_a_login_resets_the_count() -> None:
    tried = Attempts()
    fail(tried, HOME, PER_ADDRESS, 0)
    tried.succeeded(HOME)
    assert tried.wait_s(HOME, 0) == 0
    fail(tried, HOME, PER_ADDRESS - 1, 0)
    assert tried.wait_s(HOME, 0) == 0


def test_all_addresses_together_have_a_bound_that_those_who_logged_in_before_are_spared() -> None:
    tried = Attempts()
    tried.succeeded(HOME)
    for number in range(IN_ALL):
        tried.failed(f"198.51.100.{number}", 10)
    assert tried.wait_s("203.0.113.1", 10) == WINDOW_S
    assert tried.wait_s("203.0.113.1", 70) == 0
    assert tried.wait_s(HOME, 10) == 0
    fail(tried, HOME, PER_ADDRESS, 10)
    assert tried.wait_s(HOME, 10) == WINDOW_S


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "REMEMBERED", 10)
    tried = Attempts()
    for number in range(30):
        tried.failed(f"192.0.2.{number}", 0)
        tried.succeeded(f"198.51.100.{number}")
    assert len(tried._failures) == len(tried._known) == 10
    assert REMEMBERED == 10_000


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", "local"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, source: str) -> None:
    assert source_of(address) == source


@given(st.lists(st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), st.floats(0, 30)), max_size=300))
def test_nobody_gets_more_attempts_than_the_bound(steps: list[tuple[str, float]]) -> None:
    """However they are spread: in no window does an address that keeps to the waits fail more often than the bound."""
    tried = Attempts()
    now_s = 0.0
    done: list[tuple[str, float]] = []
    for address, pause_s in steps:
        now_s += pause_s
        if tried.wait_s(address, now_s) == 0:
            tried.failed(address, now_s)
            done.append((address, now_s))
    for address, at_s in done:
        in_window = [other_s for other, other_s in done if other == address and at_s - WINDOW_S < other_s <= at_s]
        assert len(in_window) <= PER_ADDRESS
    for _, at_s in done:
        assert sum(at_s - WINDOW_S < other_s <= at_s for _, other_s in done) <= IN_ALL


def test_another_bound_for_each_and_none_for_all() -> None:
    tried = Attempts(3, in_all=None)
    for number in range(IN_ALL * 2):
        tried.failed(f"192.0.2.{number % 250}", number / 100)
    assert tried.wait_s("198.51.100.1", 2) == 0
    fail(tried, HOME, 2, 100)
    assert tried.wait_s(HOME, 100) == 0
    tried.failed(HOME, 100)
    assert tried.wait_s(HOME, 100) == WINDOW_S
