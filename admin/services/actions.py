"""The log of what operators did: appended to and read, never changed."""

import builtins
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.tables import admin_actions

_ROW = admin_actions.c
TARGET_LENGTH_MAX = 2000


class Action(msgspec.Struct, frozen=True):
    """One line of the log; `at` in milliseconds since 1970 (UTC)."""

    id: int
    at: int
    actor: str
    address: str
    action: str
    target: str
    detail: dict[str, Any]
    outcome: str


class Actions:
    """`now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def append(
        self, *, actor: str, address: str, action: str, target: str, detail: Mapping[str, Any], outcome: str
    ) -> None:
        """Adds a line. In texts, what no database can hold is replaced, and what is too long is cut, not refused."""
        row = {
            "at": self._now_ms(),
            "actor": _storable(actor, 255),
            "address": _storable(address, 64),
            "action": _storable(action, 64),
            "target": _storable(target, TARGET_LENGTH_MAX),
            "detail": msgspec.json.encode(detail).decode(),
            "outcome": _storable(outcome, 64),
        }

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(admin_actions).values(row))

        await self._database.transact(work)

    async def list(
        self,
        *,
        after: int | None = None,
        limit: int,
        actor: str | None = None,
        action: str | None = None,
        since: int | None = None,
    ) -> builtins.list[Action]:
        """At most `limit` lines, newest first, those older than the line `after` only.

        `actor` and `action` are whole values; `since` is a time in milliseconds.
        """
        query = select(admin_actions).order_by(_ROW.id.desc()).limit(limit)
        if after is not None:
            query = query.where(_ROW.id < after)
        if actor is not None:
            query = query.where(_ROW.actor == _storable(actor, 255))
        if action is not None:
            query = query.where(_ROW.action == _storable(action, 64))
        if since is not None:
            query = query.where(_ROW.at >= since)
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [_action(row._asdict()) for row in rows]


def _action(row: dict[str, Any]) -> Action:
    return Action(**row | {"detail": msgspec.json.decode(row["detail"])})


def _storable(text: str, length_max: int) -> str:
    """PostgreSQL's texts have no NUL, and no encoding has half a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()[:length_max]
