"""How many requests a second there were just now. Pure: the clock is an argument."""

from collections import deque

WINDOW_S = 10.0


class Recent:
    """Requests by when they were reported, for as long as that is recent."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, int]] = deque()

    def add(self, at_s: float, requests: int) -> None:
        """Adds a report of `at_s`, by the clock that `per_second` is asked with. What is old already adds nothing."""
        self._reports.append((at_s, requests))

    def per_second(self, now_s: float) -> float:
        """Returns the rate over the last WINDOW_S."""
        reports = self._reports
        while reports and reports[0][0] <= now_s - WINDOW_S:
            reports.popleft()
        return sum(requests for at_s, requests in reports if at_s > now_s - WINDOW_S) / WINDOW_S
