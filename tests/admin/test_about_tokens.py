"""Access tokens put together: from the admin API to Redis, to its script's decisions, and back into SQL."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from admin.about_tokens import LEDGER_LAG_MAX_S, AboutTokens, about_tokens, ledger_view
from admin.counter_proof import CounterProof
from admin.database import Database, open_database
from admin.migrations import migrate
from admin.readiness import Health, View
from admin.rules.access_tokens import NewToken, Operation, QuotaOperation, QuotaType, TokenChange
from admin.rules.token_records import Span, StoredToken
from admin.services.ledger_proof import LedgerProof
from admin.services.stream import Stream
from proxy.config import Config
from proxy.rules.access_tokens import Action
from proxy.rules.batches import Answer, Batch, Part, Request, Settlement, Verdict
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import METER_LEDGER
from proxy.shared_state.ledger import Ended, Outcomes, without_time
from proxy.shared_state.meter_store import MeterStore
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until

NOW_MS = 1_763_700_000_000
NEW = NewToken(ws_id="w", email="e@x.test", operation=Operation.UNLIMITED, quota_type=QuotaType.COUNT, total_quota=5)


class Plane:
    """A control plane's part of it, and a worker's."""

    def __init__(self, database: Database, client: Client) -> None:
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.about: AboutTokens = about_tokens(Config(), database, client, self.guard, lambda: NOW_MS)
        self.store = MeterStore(client, self.guard)
        self.proof = CounterProof(client, self.guard, LedgerProof(database))
        self.batches = 0

    async def ask(
        self, token: StoredToken, *requests: str, ended: Sequence[str] = (), changes: Sequence[Settlement] = ()
    ) -> Answer:
        """Asks as a worker does, for one unit each."""
        self.batches += 1
        asked = [Request(0, token.revision, 1, name) for name in requests]
        batch = Batch("w", self.batches, False, 0, [Part(0, False)], [*changes], asked)
        outcomes = Outcomes([Ended(token.id, name, True, "", "", "exact") for name in ended], 0)
        return await self.store.decide(batch, [token.digest], [without_time(outcomes) if ended else b""])

    async def caught_up(self) -> bool:
        return await self.client.xlen(METER_LEDGER) == 0

    async def logs(self, token: StoredToken) -> list[tuple[Any, ...]]:
        rows = await self.about.services.logs.list(token=token.id, span=Span(), limit=100)
        return [(row.sequence, row.action, row.quota_after, row.execution_success) for row in reversed(rows)]


@pytest.fixture(name="play")
def fixture_play(tmp_path: Path) -> Any:
    def play(story: Callable[[Plane], Coroutine[Any, Any, None]]) -> None:
        async def main(url: str) -> None:
            database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
            try:
                await migrate(database)
                async with connected(url) as client:
                    plane = Plane(database, client)
                    publish, take, *_ = plane.about.beside
                    async with beside(publish()), beside(take()):
                        await until(plane.proof.is_ready)
                        with contextlib.closing(plane.store):
                            await story(plane)
            finally:
                await database.close()

        with redis_at(EMBEDDED, tmp_path / "redis") as url:
            asyncio.run(main(url))

    return play


def test_a_quota_is_spent_to_the_unit_and_told(play: Any) -> None:
    async def story(plane: Plane) -> None:
        made = await plane.about.services.tokens.create(new=NEW)
        assert made.edited.is_published
        token = made.edited.token
        answer = await plane.ask(token, "r1", "r2", "r3", "r4", "r5", "r6")
        assert [one.verdict for one in answer.admissions] == [*[Verdict.ADMITTED] * 5, Verdict.QUOTA]
        await plane.ask(token, ended=("r1", "r2"), changes=[Settlement(0, 1, Action.REFUND, "r2")])
        assert await plane.proof.differing() is None
        await until(plane.caught_up)
        assert await plane.logs(token) == [
            (1, "init", 5, None),
            (2, "consume", 4, True),
            (3, "consume", 3, True),
            (4, "consume", 2, None),
            (5, "consume", 1, None),
            (6, "consume", 0, None),
            (7, "refund", 1, None),
        ]
        assert await plane.proof.differing() is None
        assert (await plane.proof._proof.prove()).problem == ""

    play(story)


def test_a_recharge_and_an_edit_reach_workers_and_the_ledger(play: Any) -> None:
    async def story(plane: Plane) -> None:
        tokens = plane.about.services.tokens
        token = (await tokens.create(new=NEW)).edited.token
        await plane.ask(token, "r1")
        change = TokenChange(operation=Operation.UNLIMITED, quota_operation=QuotaOperation.ADD, quota_amount=50)
        await tokens.update(id=token.id, change=change, request_id="top-up")
        edited = await tokens.update(id=token.id, change=TokenChange(rate_limit_per_minute=1), request_id="e")
        assert edited.is_published
        assert [one.verdict for one in (await plane.ask(token, "r2")).admissions] == [Verdict.STALE]
        answer = await plane.ask(edited.token, "r3", "r4")
        assert [one.verdict for one in answer.admissions] == [Verdict.ADMITTED, Verdict.PER_MINUTE]
        await until(plane.caught_up)
        assert [row[1:3] for row in await plane.logs(token)] == [
            ("init", 5),
            ("consume", 4),
            ("recharge", 54),
            ("consume", 53),
        ]

    play(story)


def test_the_way_of_the_ledger_is_seen() -> None:
    stream = Stream(lambda: 100.0)
    assert ledger_view(stream) == View(Health.DOWN, {})
    stream.note(7, 0.51234)
    assert ledger_view(stream) == View(Health.OK, {"waiting": 7, "lag_s": 0.512})
    stream.note(7, LEDGER_LAG_MAX_S)
    assert ledger_view(stream).health is Health.DOWN
