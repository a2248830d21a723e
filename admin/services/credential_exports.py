"""Credentials with their secrets, a thousand at a time: what an operator takes away."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, select, tuple_

from admin.database import Database
from admin.rules.key_records import Status
from admin.services.credential_additions import purpose
from admin.services.credential_rows import IS_KEY, has_status, status_of
from admin.tables import credentials
from proxy.secrets import SecretError, Secrets

ROWS_MAX = 1000

_ROW = credentials.c


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A credential with its secret, which its text never has in it."""

    id: str
    secret: str
    notes: str
    group: str
    status: Status

    def __repr__(self) -> str:
        return f"Exported({self.id!r})"

    __str__ = __repr__


async def export(
    database: Database, secrets: Secrets, status: Status | None, group: str | None, now_ms: Callable[[], int]
) -> AsyncIterator[Exported]:
    """All keys, or those of a status or a group, in the order in which they were added. Raises SecretError."""
    after = (-1, "")
    while True:
        at_ms = now_ms()
        async with database.read() as connection:
            rows = (await connection.execute(_behind(after, status, group, at_ms))).all()
        for one in await asyncio.to_thread(_exported, secrets, rows, at_ms):
            yield one
        if len(rows) < ROWS_MAX:
            return
        after = (rows[-1].created_at, rows[-1].id)


async def unreadable(database: Database, secrets: Secrets) -> str:
    """Why the oldest credential cannot be decrypted: its secret key is gone. Empty where it can, or there is none."""
    async with database.read() as connection:
        query = select(_ROW.id, _ROW.secret).order_by(_ROW.created_at, _ROW.id).limit(1)
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        return ""
    try:
        secrets.decrypt(row.secret, purpose(row.id))
    except SecretError as error:
        return str(error)
    return ""


def _behind(after: tuple[int, str], status: Status | None, group: str | None, now_ms: int) -> Select[Any]:
    columns = (_ROW.id, _ROW.secret, _ROW.notes, _ROW.pool_group, _ROW.status, _ROW.banned_until, _ROW.created_at)
    query = select(*columns).where(IS_KEY, tuple_(_ROW.created_at, _ROW.id) > after)
    if status is not None:
        query = query.where(has_status(status, now_ms))
    if group is not None:
        query = query.where(_ROW.pool_group == group)
    return query.order_by(_ROW.created_at, _ROW.id).limit(ROWS_MAX)


def _exported(secrets: Secrets, rows: Sequence[Row[Any]], now_ms: int) -> list[Exported]:
    return [
        Exported(
            id=row.id,
            secret=secrets.decrypt(row.secret, purpose(row.id)),
            notes=row.notes,
            group=row.pool_group,
            status=status_of(row.status, row.banned_until, now_ms),
        )
        for row in rows
    ]
