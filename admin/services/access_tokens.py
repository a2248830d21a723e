"""Access tokens: to be made, read, changed and deleted. What workers are to know of is published.

Of a token's text, only a digest is stored; it is returned once, by `create`. A quota that is there is changed in Redis
alone, whose ledger SQL follows; what SQL has of it may be old.
"""

import asyncio
import builtins
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules import access_tokens as rules
from admin.rules import token_terms
from admin.rules.access_tokens import NewToken, QuotaChange, TokenChange, TokenTerms
from admin.rules.token_records import Edited, Made, Quota, StoredToken, Wanted
from admin.services.access_token_rows import COLUMNS, columns_of, stored
from admin.services.counters import Counters
from admin.services.failures import CounterAway, NoSuchToken
from admin.tables import access_tokens, access_tokens_revision, token_quota_logs
from proxy.rules.access_tokens import Action, State, digest_of

PUBLISHED_S = 2.0
"""How long a change waits until Redis has it. It is committed by then, and gets there all the same."""

_ROW = access_tokens.c
_REVISION = access_tokens_revision.c


async def _untold(_revision: int) -> bool:
    """Tells nobody."""
    return False


class AccessTokens:
    """All access tokens. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, now_ms: Callable[[], int], counters: Counters) -> None:
        self._database = database
        self._now_ms = now_ms
        self._counters = counters
        self.published: Callable[[int], Awaitable[bool]] = _untold
        """Awaited after each change, with its revision: returns whether Redis has it, once it has."""

    async def create(self, *, new: NewToken) -> Made:
        """Raises InvalidToken."""
        now_ms = self._now_ms()
        terms, total = token_terms.created(new, now_ms)
        text = rules.text_of(secrets.token_bytes(rules.RANDOM_BYTES))
        row = {
            "id": rules.id_of(secrets.token_bytes(rules.ID_RANDOM_BYTES)),
            "digest": digest_of(text.encode()),
            "shown": rules.shown(text),
            **columns_of(terms),
            **_counter(total, now_ms),
            "created_at": now_ms,
            "updated_at": now_ms,
        }

        async def work(connection: AsyncConnection) -> StoredToken:
            row["revision"] = await _next_revision(connection)
            await connection.execute(insert(access_tokens).values(row))
            if total is not None:
                await _begin_ledger(connection, row["id"], terms, total, now_ms)
            return await _existing(connection, row["id"])

        token = await self._database.transact(work)
        return Made(Edited(token, await self._is_published(token.revision)), text)

    async def find(self, *, name: str) -> StoredToken | None:
        """The token of an id, or of a token's own text. Its quota may be old."""
        which = _ROW.digest == digest_of(name.encode()) if rules.is_text(name) else _ROW.id == name
        async with self._database.read() as connection:
            row = (await connection.execute(select(*COLUMNS).where(which))).one_or_none()
        return None if row is None else stored(row)

    async def list(self, *, wanted: Wanted, limit: int, offset: int = 0) -> Sequence[StoredToken]:
        """At most `limit`, newest first, without the first `offset`. Their quotas may be old."""
        # Of rows that are passed over, only their places in an index are read.
        ids = select(_ROW.id).where(*_conditions(wanted)).order_by(_ROW.created_at.desc(), _ROW.id.desc())
        shown = ids.offset(offset).limit(limit).subquery()
        query = select(*COLUMNS).join(shown, shown.c.id == _ROW.id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(_ROW.created_at.desc(), _ROW.id.desc()))
            return [stored(row) for row in rows]

    async def count(self, *, wanted: Wanted) -> int:
        query = select(func.count()).select_from(access_tokens).where(*_conditions(wanted))
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def live(self, *, tokens: Sequence[StoredToken]) -> Sequence[StoredToken]:
        """The same with their quotas as Redis has them; those that it does not have stay as they are."""
        counted = [token.digest for token in tokens if token.quota is not None]
        try:
            quotas: Mapping[str, Quota] = await self._counters.read(counted) if counted else {}
        except CounterAway:
            quotas = {}
        return [
            _with(token, quotas[token.digest]) if token.quota is not None and token.digest in quotas else token
            for token in tokens
        ]

    async def update(self, *, id: str, change: TokenChange, request_id: str) -> Edited:  # noqa: A002 - the word for it
        """Changes what is given. Raises NoSuchToken, InvalidToken, CounterAway, QuotaTooLarge: nothing is done then.

        But CounterAway also where Redis does not answer in time, and nobody knows whether it changed the quota. The
        ledger has it under `request_id`; to ask again with the same one does it once.
        """
        before = await self.find(name=id)
        if before is None or before.terms.state is State.DELETED:
            raise NoSuchToken(id)
        asked = token_terms.changed(before.terms, change, self._now_ms())
        if asked.quota is not None and asked.terms == before.terms:
            # What is done most often holds no lock while Redis is asked.
            quota = await self._counters.change(before.digest, *asked.quota, request_id)
            return Edited(_with(before, quota), is_published=True)
        made: builtins.list[Quota] = []  # once, though a transaction may be made again

        async def work(connection: AsyncConnection) -> StoredToken:
            token, quota = await _change(connection, id, change, self._now_ms())
            if quota is not None and not made:
                # Last, so that it is not done where the rest fails.
                made.append(await self._counters.change(token.digest, *quota, request_id))
            return token

        token = await self._database.transact(work)
        is_published = await self._is_published(token.revision)
        return Edited(_with(token, made[0]) if made else token, is_published)

    async def delete(self, *, id: str) -> Edited:  # noqa: A002
        """Ends a token for good; it and its ledger stay to be read. Raises NoSuchToken."""

        async def work(connection: AsyncConnection) -> StoredToken:
            now_ms = self._now_ms()
            await _existing(connection, id, State.DELETED)
            await _edit(connection, id, {"state": State.DELETED, "deleted_at": now_ms}, now_ms)
            return await _existing(connection, id)

        token = await self._database.transact(work)
        return Edited(token, await self._is_published(token.revision))

    async def _is_published(self, revision: int) -> bool:
        try:
            async with asyncio.timeout(PUBLISHED_S):
                return await self.published(revision)
        except TimeoutError:
            return False


async def _next_revision(connection: AsyncConnection) -> int:
    """Counts up. Whoever else edits a token waits from here to the end of the transaction."""
    await connection.execute(update(access_tokens_revision).values(number=_REVISION.number + 1))
    return int((await connection.execute(select(_REVISION.number))).scalar_one())


async def _change(
    connection: AsyncConnection, token: str, change: TokenChange, now_ms: int
) -> tuple[StoredToken, QuotaChange | None]:
    """Writes the terms that a change makes, and begins a ledger where there is to be one.

    Returns the token, and what is left to be done to its counter.
    """
    before = await _existing(connection, token, State.DELETED)
    asked = token_terms.changed(before.terms, change, now_ms)
    counter = {} if asked.total is None else _counter(asked.total, now_ms)
    await _edit(connection, token, {**columns_of(asked.terms), **counter}, now_ms)
    if asked.total is not None:
        await _begin_ledger(connection, token, asked.terms, asked.total, now_ms)
    return await _existing(connection, token), asked.quota


async def _edit(connection: AsyncConnection, token: str, values: Mapping[str, Any], now_ms: int) -> None:
    revision = await _next_revision(connection)
    wanted = {**values, "revision": revision, "updated_at": now_ms}
    await connection.execute(update(access_tokens).where(_ROW.id == token).values(wanted))


async def _existing(connection: AsyncConnection, token: str, but: State | None = None) -> StoredToken:
    """The token, which nobody else changes until the transaction ends. Raises NoSuchToken, also of a state `but`."""
    row = (await connection.execute(select(*COLUMNS).where(_ROW.id == token).with_for_update())).one_or_none()
    if row is None or row.state == but:
        raise NoSuchToken(token)
    return stored(row)


async def _begin_ledger(connection: AsyncConnection, token: str, terms: TokenTerms, total: int, now_ms: int) -> None:
    """The one row of a ledger that is not born in Redis."""
    await connection.execute(
        insert(token_quota_logs).values(
            token=token,
            sequence=1,
            ws_id=terms.ws_id,
            email=terms.email,
            quota_before=0,
            quota_after=total,
            quota_change=total,
            total_after=total,
            action=Action.INIT,
            unit=terms.unit,
            created_at=now_ms,
        )
    )


def _counter(total: int | None, now_ms: int) -> dict[str, int | None]:
    """The columns of a counter that begins; with None, there is none."""
    if total is None:
        return {"total": None, "remaining": None, "sequence": 0, "synced_at": None}
    return {"total": total, "remaining": total, "sequence": 1, "synced_at": now_ms}


def _with(token: StoredToken, quota: Quota) -> StoredToken:
    return msgspec.structs.replace(token, quota=quota, is_live=True)


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        _ROW.state != State.DELETED if wanted.state is None else _ROW.state == wanted.state
    ]
    if wanted.ws_id is not None:
        found.append(_ROW.ws_id == wanted.ws_id)
    if wanted.email is not None:
        found.append(_ROW.email == wanted.email)
    return found
