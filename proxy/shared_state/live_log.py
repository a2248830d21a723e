"""Lines about requests, collected in a worker while somebody listens. `live_log_channel.py` brings them there.

Nothing here needs redis-py: workers without a Redis do not load it. There nobody ever listens.
"""

import asyncio
from collections.abc import Callable

import msgspec

LISTENS_S = 15.0
"""For so long somebody listens who said so; whoever goes on says it again every 5 s."""
LINES_MAX = 1_000
"""So many lines are collected between two batches, which are 100 ms apart at least. Further ones are counted."""
BYTES_MAX = 1024 * 1024
"""The same for their bytes."""


class Batch(msgspec.Struct, array_like=True):
    """Lines of one worker, each in JSON without its line end, and how many more there would have been."""

    lines: list[bytes]
    left_out: int


class LiveLog:
    """The lines of one worker. `now_s` is a clock that never goes back, such as `time.monotonic`."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._until_s = 0.0
        self._batch = Batch([], 0)
        self._bytes = 0
        self.some = asyncio.Event()
        """Set while there are lines."""

    @property
    def wanted(self) -> bool:
        """Whether somebody listens. To be asked before a line is made."""
        return self._now_s() < self._until_s

    def listen(self) -> None:
        """Somebody says that he listens."""
        self._until_s = self._now_s() + LISTENS_S

    def add(self, line: bytes) -> None:
        """Takes a line that is wanted."""
        batch = self._batch
        if len(batch.lines) < LINES_MAX and self._bytes + len(line) <= BYTES_MAX:
            batch.lines.append(line)
            self._bytes += len(line)
        else:
            batch.left_out += 1
        self.some.set()

    def take(self) -> Batch:
        """Returns what has been collected since it was last asked."""
        batch, self._batch = self._batch, Batch([], 0)
        self._bytes = 0
        self.some.clear()
        return batch
