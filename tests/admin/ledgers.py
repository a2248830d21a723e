"""Access tokens and rows of their ledger, as tests put them into tables and look at them there."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.services import events
from admin.services.events import Entry, Taken
from admin.services.ledger_intake import LedgerIntake
from proxy.rules.access_tokens import Action
from proxy.shared_state.ledger import Change, Outcome

AT_MS = 1_763_700_000_000
_encode = msgspec.msgpack.Encoder().encode
_ROW = tables.token_quota_logs.c
_TOKEN = tables.access_tokens.c


def packed(*rows: Struct) -> bytes:
    return _encode([*rows])


def consume(token: str, sequence: int, before: int, request: str = "", cost: int = 1, total: int = 100) -> Change:
    """One admission, at a time that its number tells."""
    name = request or f"{token}-{sequence}"
    return Change(token, sequence, Action.CONSUME, before, before - cost, total, name, AT_MS + sequence)


def consumed(token: str, first: int, last: int, total: int = 100) -> list[Change]:
    """Admissions of these numbers, behind the `init` row of a token with such a quota."""
    return [consume(token, number, total + 2 - number, total=total) for number in range(first, last + 1)]


def outcome(token: str, request: str, error: str = "", message: str = "", usage: str = "") -> Outcome:
    return Outcome(token, request, not error, error, message, usage, AT_MS)


def token_row(name: str, total: int | None = 100, **values: Any) -> dict[str, Any]:
    counted = total is not None
    return {
        "id": name,
        "digest": name.rjust(64, "0"),
        "shown": f"flow_{name}",
        "ws_id": f"ws-{name}",
        "email": f"{name}@example.org",
        "state": "active",
        "quota_type": "count" if counted else "time",
        "unit": "requests" if counted else None,
        "total": total,
        "remaining": total,
        "sequence": 1 if counted else 0,
        "synced_at": None,
        "expires_at": None,
        "per_minute": 0,
        "per_second": 0,
        "concurrent": 0,
        "routes": "[]",
        "models": "[]",
        "networks": "[]",
        "refunds": 1,
        "on_store_outage": "deny",
        "revision": 1,
        "created_at": AT_MS,
        "updated_at": AT_MS,
        "deleted_at": None,
        **values,
    }


def init_row(name: str, total: int = 100, at_ms: int = AT_MS) -> dict[str, Any]:
    return {
        "token": name,
        "sequence": 1,
        "ws_id": f"ws-{name}",
        "email": f"{name}@example.org",
        "quota_before": 0,
        "quota_after": total,
        "quota_change": total,
        "total_after": total,
        "action": "init",
        "unit": "requests",
        "request_id": None,
        "execution_success": None,
        "execution_error_type": None,
        "execution_error_message": None,
        "usage_mark": None,
        "created_at": at_ms,
    }


class Ledger:
    """An intake, and what lies in the tables. Each token that is added is an edit with the next number."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ms = AT_MS
        self.forks = 0
        self.intake = LedgerIntake(lambda: self.now_ms)
        self.intake.on_fork = self._forked

    def _forked(self) -> None:
        self.forks += 1

    async def add(self, *names: str, total: int | None = 100, **values: Any) -> None:
        async with self.database.write() as connection:
            revision = await self._next(connection)
            rows = [token_row(name, total, **{"revision": revision, **values}) for name in names]
            await connection.execute(insert(tables.access_tokens), rows)
            if total is not None:
                await connection.execute(insert(tables.token_quota_logs), [init_row(name, total) for name in names])

    async def change(self, name: str, **values: Any) -> int:
        """Edits a token; returns the edit's number."""
        async with self.database.write() as connection:
            revision = await self._next(connection)
            where = update(tables.access_tokens).where(_TOKEN.id == name)
            await connection.execute(where.values(revision=revision, **values))
        return revision

    async def _next(self, connection: AsyncConnection) -> int:
        number = tables.access_tokens_revision.c.number
        await connection.execute(update(tables.access_tokens_revision).values(number=number + 1))
        return int((await connection.execute(select(number))).scalar_one())

    async def take(self, *rows: Struct | bytes) -> Taken:
        """Takes rows, each in an entry of its own, as one batch in one transaction."""
        entries = [
            Entry(f"{number}-0", 0.5, one if isinstance(one, bytes) else packed(one))
            for number, one in enumerate(rows, 1)
        ]

        async def work(connection: AsyncConnection) -> Taken:
            await events.lock(connection, "ledger")
            return await self.intake.take(connection, entries)

        taken = await self.database.transact(work)
        taken.committed()
        return taken

    async def rows(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """What lies in columns of a token's rows, in their order."""
        query = select(*(_ROW[column] for column in columns)).where(_ROW.token == name).order_by(_ROW.sequence)
        async with self.database.read() as connection:
            return [tuple(row) for row in await connection.execute(query)]

    async def balances(self, name: str) -> list[tuple[int, int, int]]:
        """Number, before and after of a token's rows."""
        return [(row[0], row[1], row[2]) for row in await self.rows(name, "sequence", "quota_before", "quota_after")]

    async def standing(self, name: str) -> Sequence[Any]:
        """Number, remaining, total and when, of a token."""
        columns = (_TOKEN.sequence, _TOKEN.remaining, _TOKEN.total, _TOKEN.synced_at)
        async with self.database.read() as connection:
            return tuple((await connection.execute(select(*columns).where(_TOKEN.id == name))).one())
