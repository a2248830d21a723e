"""How the stream goes just now."""

from admin.services.stream import STALE_S, Stream


def test_what_was_noted_is_known_for_a_while() -> None:
    now_s = 1000.0
    stream = Stream(lambda: now_s)
    assert stream.lag() is None
    stream.note(3, 0.5)
    now_s += STALE_S - 1
    assert stream.lag() == (3, 0.5)
    now_s += 1
    assert stream.lag() is None


def test_requests_count_from_when_they_were_reported() -> None:
    now_s = 1000.0
    stream = Stream(lambda: now_s)
    stream.add(1.0, 20)
    stream.add(100.0, 5000)
    assert stream.requests_per_second() == 2
    now_s += 9
    assert stream.requests_per_second() == 0
