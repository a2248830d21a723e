"""What workers are to know of credentials: all of them, or what changed since a version that they have."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules.key_records import Status
from admin.services import credential_version
from admin.tables import credentials, credentials_gone
from proxy.rules.credentials import Credential, Kind
from proxy.shared_state.published import Mark
from proxy.shared_state.published_credentials import Replace

ROWS_MAX = 1000
"""Read at once: a hundredth of a second, in which the event loop stands still."""

_ROW = credentials.c
_GONE = credentials_gone.c
_COLUMNS = (
    _ROW.version,
    _ROW.id,
    _ROW.secret,
    _ROW.pool_group,
    _ROW.kind,
    _ROW.status,
    _ROW.requests,
    _ROW.successes,
    _ROW.last_used_at,
    _ROW.tokens_used,
    _ROW.tokens_total,
)


class Changes(NamedTuple):
    """What to publish as `mark`. `replace` says whether `changed` is all that there is."""

    mark: Mark
    changed: Sequence[Credential]
    gone: Sequence[str]
    replace: Replace


class CredentialFeed:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def mark(self) -> Mark:
        """The newest version."""
        async with self._database.read() as connection:
            return (await credential_version.numbers(connection)).mark

    async def since(self, known: Mark | None) -> Changes:
        """What changed since a version; all, where that is none of this database, or too long ago.

        The newest version is read first: what is changed while the rest is read may come twice, and is never left out.
        """
        async with self._database.read() as connection:
            newest, forgotten = await credential_version.numbers(connection)
            if known is None or known.made_ms != newest.made_ms or not forgotten <= known.version <= newest.version:
                return Changes(newest, await _changed(connection, -1), (), Replace.WHOLE)
            changed = await _changed(connection, known.version)
            gone = set(await connection.scalars(select(_GONE.id).where(_GONE.version > known.version)))
        present = [one for one in changed if one.id not in gone]
        return Changes(newest, present, sorted(gone), Replace.PART)


async def _changed(connection: AsyncConnection, version: int) -> list[Credential]:
    """All that changed after a version, a few thousand at a time, so that the event loop gets its turn."""
    found: list[Credential] = []
    after = (version + 1, "")
    while True:
        # The first condition says less than the second, and is one that MySQL finds an index for.
        behind = (_ROW.version >= after[0], tuple_(_ROW.version, _ROW.id) > after)
        query = select(*_COLUMNS).where(*behind).order_by(_ROW.version, _ROW.id).limit(ROWS_MAX)
        rows = (await connection.execute(query)).all()
        found += await asyncio.to_thread(_read, [*rows])
        if len(rows) < ROWS_MAX:
            return found
        after = (rows[-1].version, rows[-1].id)


def _read(rows: Sequence[Any]) -> list[Credential]:
    return [
        Credential(
            row.id,
            row.secret,
            row.pool_group,
            Kind(row.kind),
            row.status == Status.ACTIVE,
            row.requests,
            row.successes,
            (row.last_used_at or 0) / 1000,
            row.tokens_used,
            row.tokens_total,
        )
        for row in rows
    ]
