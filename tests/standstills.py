"""Whether the machine stood still while a test ran: without that, a deadline that passed looks like a fault."""

import threading
from time import monotonic, sleep  # by name: tests put clocks of their own into the module

NOTED_S = 1.0
LOOK_AGAIN_S = 0.1


class Standstills:
    """Notes from now on when this process was not run for longer than a second. It may have been this process alone."""

    def __init__(self) -> None:
        self._noted: list[tuple[float, float]] = []
        self._looked_s = monotonic()
        self._looking = threading.Lock()
        threading.Thread(target=self._look, name="standstills", daemon=True).start()

    def since(self, began_s: float) -> list[float]:
        """Returns how many seconds each lasted that ended after `began_s` (of time.monotonic), also just now."""
        self._note()
        return [lasted_s for ended_s, lasted_s in self._noted if ended_s >= began_s]

    def _look(self) -> None:
        while True:
            sleep(LOOK_AGAIN_S)
            self._note()

    def _note(self) -> None:
        with self._looking:
            now_s = monotonic()
            if now_s - self._looked_s > NOTED_S:
                self._noted.append((now_s, now_s - self._looked_s))
            self._looked_s = now_s
