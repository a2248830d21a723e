"""Reports of backends, in a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from admin.services.shared_reports import SharedReports
from proxy.shared_state.backend_feed import REPORT_S
from proxy.shared_state.backend_names import field_of
from proxy.shared_state.backend_reports import BackendReport
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_REPORTS, BACKENDS_CHANNEL
from tests.redis_servers import DEADLINE_S, connected, server

NOW_S = 1_800_000_000.0
ONE, OTHER, THIRD = ("u", "one"), ("u", "other"), ("v", "one")


def with_reports(directory: Path, story: Callable[[Client, SharedReports], Awaitable[None]]) -> None:
    async def main(url: str) -> None:
        async with connected(url) as client:
            await story(client, SharedReports(client, Guard(client, Breaker(), DEADLINE_S)))

    with server(directory) as port:
        asyncio.run(main(f"redis://127.0.0.1:{port}"))


def at(at_s: float, cpu_usage: float = 50.0) -> BackendReport:
    return BackendReport(cpu_usage, 25.0, 1.5, at_s)


def test_the_newest_report_of_each_backend_is_there_and_announced(tmp_path: Path) -> None:
    async def story(client: Client, reports: SharedReports) -> None:
        async with client.pubsub() as channel:
            await channel.subscribe(BACKENDS_CHANNEL)
            assert (await channel.get_message(timeout=DEADLINE_S))["type"] == "subscribe"
            await reports.put(ONE, at(NOW_S))
            await reports.put(ONE, at(NOW_S + 1, cpu_usage=60.0))
            await reports.put(THIRD, at(NOW_S + 2))
            for _ in range(3):
                assert (await channel.get_message(timeout=DEADLINE_S))["type"] == "message"
        assert await reports.all() == {ONE: at(NOW_S + 1, cpu_usage=60.0), THIRD: at(NOW_S + 2)}

    with_reports(tmp_path, story)


def test_those_that_do_not_count_any_more_are_removed_when_others_come(tmp_path: Path) -> None:
    async def story(_: Client, reports: SharedReports) -> None:
        await reports.put(ONE, at(NOW_S))
        await reports.put(OTHER, at(NOW_S + 30))
        assert (await reports.all()).keys() == {ONE, OTHER}
        await reports.put(THIRD, at(NOW_S + REPORT_S))
        assert (await reports.all()).keys() == {OTHER, THIRD}

    with_reports(tmp_path, story)


def test_what_another_version_wrote_is_passed_over_and_left(tmp_path: Path) -> None:
    async def story(client: Client, reports: SharedReports) -> None:
        await client.hset(BACKEND_REPORTS, mapping={field_of(OTHER): b"?", b"none": b"\xc1"})  # type: ignore[misc,arg-type,unused-ignore]
        await reports.put(ONE, at(NOW_S))
        assert (await reports.all()).keys() == {ONE}
        assert await client.hlen(BACKEND_REPORTS) == 3  # type: ignore[misc,unused-ignore]

    with_reports(tmp_path, story)
