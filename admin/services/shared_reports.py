"""What backends say of their load, in Redis: written for workers to read, and read to be shown."""

from typing import Any

from proxy.shared_state.backend_feed import REPORT_S
from proxy.shared_state.backend_names import field_of, name_of
from proxy.shared_state.backend_reports import BackendReport, decode_report, encode_report
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_REPORTS, BACKENDS_CHANNEL
from proxy.shared_state.linked_groups import Name
from proxy.shared_state.published import UNREADABLE

REPORT = b"report"
"""What is announced. Who hears it reads the hash."""


TIDY_S = 60.0
"""How often those that do not count any more are removed: workers read all of them once a second."""


class SharedReports:
    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard
        self._tidied_s = 0.0

    async def put(self, name: Name, report: BackendReport) -> None:
        """Puts a backend's report in place of the one before, and tells workers. Raises StoreUnavailable."""
        field, data = field_of(name), encode_report(report)
        await self._guard.call(lambda: self._client.hset(BACKEND_REPORTS, field, data))  # type: ignore[arg-type,return-value,unused-ignore]
        await self._guard.call(lambda: self._client.publish(BACKENDS_CHANNEL, REPORT))
        if report.at_s - self._tidied_s >= TIDY_S:
            await self._tidy(report.at_s)

    async def all(self) -> dict[Name, BackendReport]:
        """Returns all that can be read. Raises StoreUnavailable."""
        named = ((name_of(field), report) for field, report in (await self._read()).items())
        return {name: report for name, report in named if name is not None}

    async def _tidy(self, now_s: float) -> None:
        gone = [field for field, report in (await self._read()).items() if now_s - report.at_s >= REPORT_S]
        if gone:
            await self._guard.call(lambda: self._client.hdel(BACKEND_REPORTS, *gone))  # type: ignore[arg-type,return-value,unused-ignore]
        self._tidied_s = now_s

    async def _read(self) -> dict[bytes, BackendReport]:
        answer: Any = await self._guard.call(lambda: self._client.hgetall(BACKEND_REPORTS))  # type: ignore[arg-type,return-value,unused-ignore]
        found = {}
        for field, data in answer.items():
            try:
                found[field] = decode_report(data)
            except UNREADABLE:  # of another version
                continue
        return found
