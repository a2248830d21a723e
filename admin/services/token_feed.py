"""What workers are to know of access tokens: all of them, or those that were edited since a revision."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.tables import access_tokens, access_tokens_revision, credentials_version
from proxy.rules.access_tokens import AccessToken, OnStoreOutage, State, Terms, Unit
from proxy.shared_state.token_store import Counter, PublishedToken

ROWS_MAX = 1000
GONE_MS = 24 * 3600 * 1000
"""For how long a deleted token stays published: what its last requests used is still settled then."""
FORGOTTEN_MS = 7 * GONE_MS
"""Up to when one is looked for that is to be forgotten: a control plane may have been away for days."""

_ROW = access_tokens.c
_REVISION = access_tokens_revision.c.number
_strings = msgspec.json.Decoder(tuple[str, ...])


class TokenFeed:
    """`now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def revision(self) -> int:
        """The number of the last edit."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(_REVISION))).scalar_one())

    async def overtake(self, revision: int) -> None:
        """Makes all tokens edits behind a revision that this database has not come to, as it was restored.

        Redis and workers keep what is of a later revision than what they are told.
        """

        async def work(connection: AsyncConnection) -> None:
            behind = update(access_tokens_revision).where(revision > _REVISION).values(number=revision + 1)
            if (await connection.execute(behind)).rowcount:
                await connection.execute(update(access_tokens).values(revision=revision + 1))

        await self._database.transact(work)

    async def made_ms(self) -> int:
        """When this database's numbers began to count, which tells it from others."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(credentials_version.c.made_at))).scalar_one())

    async def since(self, revision: int) -> AsyncIterator[Sequence[PublishedToken]]:
        """Tokens that were edited after a revision, in the order of their last edits, a thousand at a time.

        One that is edited meanwhile comes once more, and none is left out.
        """
        after: tuple[int, str] = (revision + 1, "")
        while True:
            # The first condition says less than the second, and is one that MySQL finds an index for.
            behind = (_ROW.revision >= after[0], tuple_(_ROW.revision, _ROW.id) > after, self._is_kept())
            query = select(access_tokens).where(*behind).order_by(_ROW.revision, _ROW.id).limit(ROWS_MAX)
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            if rows:
                yield [*map(_published, rows)]
            if len(rows) < ROWS_MAX:
                return
            after = (rows[-1].revision, rows[-1].id)

    async def strays(self, digests: Sequence[str]) -> Sequence[str]:
        """Those of these digests that no token has that is to be published."""
        async with self._database.read() as connection:
            query = select(_ROW.digest).where(_ROW.digest.in_(digests), self._is_kept())
            return sorted({*digests} - {*await connection.scalars(query)})

    async def long_deleted(self) -> Sequence[str]:
        """The digests of tokens whose last requests have ended long ago."""
        now_ms = self._now_ms()
        span = _ROW.deleted_at.between(now_ms - FORGOTTEN_MS, now_ms - GONE_MS)
        async with self._database.read() as connection:
            return (await connection.scalars(select(_ROW.digest).where(_ROW.state == State.DELETED, span))).all()

    def _is_kept(self) -> ColumnElement[bool]:
        return or_(_ROW.state != State.DELETED, _ROW.deleted_at > self._now_ms() - GONE_MS)


def _published(row: Row[Any]) -> PublishedToken:
    record = AccessToken(
        row.id,
        row.revision,
        None if row.unit is None else Unit(row.unit),
        routes=_strings.decode(row.routes),
        models=_strings.decode(row.models),
        networks=_strings.decode(row.networks),
        refunds=bool(row.refunds),
        on_store_outage=OnStoreOutage(row.on_store_outage),
        expires_ms=row.expires_at or 0,
    )
    terms = Terms(State(row.state), row.expires_at or 0, row.per_minute, row.per_second, row.concurrent)
    counter = None if row.unit is None else Counter(row.remaining, row.total, row.sequence)
    return PublishedToken(row.digest, record, terms, counter)
