"""When a child that died is started again, and when that is given up. Pure: times are arguments."""

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
STEADY_S = 60.0
"""A child that lived so long has recovered: its earlier deaths no longer count."""
DEATHS_MAX = 8
"""After so many deaths in a row, none of them after a steady life, it is given up: about a minute of trying."""


class Restarts:
    """The deaths of one child."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay_s(self, lived_s: float) -> float | None:
        """Returns how long to wait before the next start, None where there is to be none."""
        delay_s = self.patient_delay_s(lived_s)
        return None if self._deaths >= DEATHS_MAX else delay_s

    def patient_delay_s(self, lived_s: float) -> float:
        """The same for a death that is never a reason to give up."""
        if lived_s >= STEADY_S:
            self._deaths = 0
        self._deaths += 1
        return min(FIRST_DELAY_S * 2.0 ** min(self._deaths - 1, DEATHS_MAX), LONGEST_DELAY_S)
