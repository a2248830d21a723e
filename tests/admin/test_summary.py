"""The figures that workers may show lie in Redis, for a while."""

import asyncio
import json
from pathlib import Path

from admin import summary
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.keys import SUMMARY
from tests.admin.counted import delta, row, worker
from tests.admin.memory import Memory, Worker
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at


def test_it_is_written_and_does_not_last(tmp_path: Path) -> None:
    memory = Memory()
    memory.statistics.deltas = [delta(row(s2xx=3, s5xx=1), at_s=memory.statistics.now_s)]
    memory.workers.workers = [Worker(worker(), alive=True)]

    async def main(url: str) -> None:
        async with connected(url) as client:
            await summary.write(client, Guard(client, Breaker(), DEADLINE_S), memory.services)
            found = json.loads(await client.get(SUMMARY) or b"")
            performance = found.pop("performance")
            assert found == {"total": 4, "errors": 1, "dropped_events": 0, "avg_response": 250.0}
            assert (performance["error_rate"], performance["memory_usage_mb"], performance["workers"]) == (
                25.0,
                50.0,
                1,
            )
            assert 0 < await client.ttl(SUMMARY) <= summary.GOOD_FOR_S

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(main(url))
