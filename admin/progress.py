"""How far something is, for whoever waits at a terminal; elsewhere a line at each tenth, if there is much to do."""

from typing import TextIO

WIDTH = 40
LINES_FROM = 1000
"""Of fewer, nobody who reads a log wants to hear."""


class Progress:
    """Tells on `stream` how many of `total` are done."""

    def __init__(self, stream: TextIO, what: str, total: int) -> None:
        self._stream = stream
        self._what = what
        self._total = max(total, 1)
        self._terminal = stream.isatty()
        self._shown = -1

    def tell(self, done: int) -> None:
        """Draws the bar anew, or writes a line, where that would say something new."""
        steps = 100 if self._terminal else 10
        step = min(done, self._total) * steps // self._total
        if step == self._shown:
            return
        self._shown = step
        if self._terminal:
            self._stream.write(f"\r{bar(step / steps)} {done}/{self._total} {self._what}")
        elif self._total >= LINES_FROM and step:
            self._stream.write(f"{done} of {self._total} {self._what}\n")
        self._stream.flush()

    def end(self) -> None:
        """Takes the bar away."""
        if self._terminal and self._shown >= 0:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def bar(part: float) -> str:
    full = int(part * WIDTH)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {part:4.0%}"
