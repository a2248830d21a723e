"""Lines about requests, collected while somebody listens."""

from proxy.shared_state.live_log import BYTES_MAX, LINES_MAX, LISTENS_S, Batch, LiveLog


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_are_wanted_for_a_while_after_somebody_said_that_he_listens() -> None:
    clock = Clock()
    live_log = LiveLog(clock)
    wanted = [live_log.wanted]
    for wait_s in (LISTENS_S - 1, LISTENS_S - 1, LISTENS_S):
        live_log.listen()
        clock.now_s += wait_s
        wanted.append(live_log.wanted)
    assert wanted == [False, True, True, False]


def test_lines_are_taken_in_their_order_and_once() -> None:
    live_log = LiveLog(Clock())
    assert live_log.take() == Batch([], 0)
    live_log.add(b"1")
    live_log.add(b"2")
    assert live_log.some.is_set()
    assert live_log.take() == Batch([b"1", b"2"], 0)
    assert not live_log.some.is_set()
    assert live_log.take() == Batch([], 0)


def test_what_is_too_much_is_counted() -> None:
    live_log = LiveLog(Clock())
    for _ in range(LINES_MAX + 3):
        live_log.add(b"1")
    assert live_log.take() == Batch([b"1"] * LINES_MAX, 3)
    half = b"1" * (BYTES_MAX // 2)
    for line in (half, half, b"1"):
        live_log.add(line)
    assert live_log.take() == Batch([half, half], 1)
    live_log.add(b"1")
    assert live_log.take() == Batch([b"1"], 0)
