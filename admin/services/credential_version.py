"""The number of the last change of credentials, which orders what is published of them."""

from typing import NamedTuple

from sqlalchemy import insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import Select

from admin.tables import credentials_gone, credentials_version
from proxy.shared_state.published import Mark

_ROW = credentials_version.c


class Numbers(NamedTuple):
    """`mark` is the last change; tombstones of changes up to `forgotten` are not kept any more."""

    mark: Mark
    forgotten: int


async def numbers(connection: AsyncConnection) -> Numbers:
    row = (await connection.execute(select(_ROW.number, _ROW.made_at, _ROW.forgotten))).one()
    return Numbers(Mark(row.number, row.made_at), row.forgotten)


async def next_version(connection: AsyncConnection) -> int:
    """Counts up. Whoever else wants to change credentials waits from here to the end of the transaction.

    It comes before anything is read that the change depends on.
    """
    await connection.execute(update(credentials_version).values(number=_ROW.number + 1))
    return int((await connection.execute(select(_ROW.number))).scalar_one())


async def bury(connection: AsyncConnection, ids: Select[tuple[str]], version: int, now_ms: int) -> None:
    """Leaves tombstones for credentials that the caller removes as that version."""
    chosen = ids.subquery()
    columns = credentials_gone.c
    rows = select(chosen.c[0], literal(version), literal(now_ms))
    await connection.execute(
        insert(credentials_gone).from_select([columns.id, columns.version, columns.removed_at], rows)
    )
