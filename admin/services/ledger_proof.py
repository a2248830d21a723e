"""The proof that SQL adds up: of each token, that its rows make what remains.

It is made beside a control plane that goes on writing. What differs is looked at once more, alone, while nobody writes
to the ledger, before it is told.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.rules.ledger_chain import BEGINNING, Chain, Link, Point
from admin.services import events

TOKENS_MAX = 500
ROWS_MAX = 10_000

_TOKEN = tables.access_tokens.c
_ROW = tables.token_quota_logs.c
_CARRIED = tables.token_quota_carried.c


class Counted(NamedTuple):
    """What SQL says of a token's counter. `is_deleted`: Redis need not have it any more."""

    id: str
    digest: str
    point: Point
    total: int
    revision: int
    is_deleted: bool


class Proved(NamedTuple):
    """How many tokens and rows were looked at, and of the first token that differs, which and how."""

    tokens: int
    rows: int
    token: str = ""
    problem: str = ""


class LedgerProof:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def prove(self) -> Proved:
        """Looks at all tokens with a quota, then at rows of tokens that are gone. Raises DatabaseDown."""
        tokens = rows = 0
        for pages in (self._counted_names(), self._gone_names()):
            async for names in pages:
                found, seen = await self._beside_others(names)
                tokens, rows = tokens + len(names), rows + seen
                for name in found:
                    if problem := await self._alone(name):
                        return Proved(tokens, rows, name, problem)
        return Proved(tokens, rows)

    async def counted(self) -> AsyncIterator[Sequence[Counted]]:
        """All tokens with a quota, some at a time."""
        columns = (_TOKEN.id, _TOKEN.digest, _TOKEN.sequence, _TOKEN.remaining, _TOKEN.total, _TOKEN.revision)
        after = ""
        while True:
            query = select(*columns, _TOKEN.deleted_at).where(_TOKEN.id > after, _TOKEN.unit.is_not(None))
            async with self._database.read() as connection:
                found = (await connection.execute(query.order_by(_TOKEN.id).limit(TOKENS_MAX))).all()
            if found:
                yield [
                    Counted(row.id, row.digest, _point(row.sequence, row.remaining), row.total or 0, row.revision, gone)
                    for row in found
                    for gone in [row.deleted_at is not None]
                ]
            if len(found) < TOKENS_MAX:
                return
            after = found[-1].id

    async def left_by(self, token: str, sequence: int) -> int | None:
        """What a change of a token left; None where its row is not there."""
        row = select(_ROW.quota_after).where(_ROW.token == token, _ROW.sequence == sequence)
        carried = select(_CARRIED.balance).where(_CARRIED.token == token, _CARRIED.sequence == sequence)
        async with self._database.read() as connection:
            found = await connection.scalar(row)
            return found if found is not None else await connection.scalar(carried)

    async def _counted_names(self) -> AsyncIterator[Sequence[str]]:
        async for page in self.counted():
            yield [one.id for one in page]

    async def _gone_names(self) -> AsyncIterator[Sequence[str]]:
        """Tokens of which there are rows alone."""
        after = ""
        while True:
            known = select(_TOKEN.id).where(_TOKEN.id == _ROW.token).exists()
            query = select(_ROW.token).where(_ROW.token > after, ~known).distinct().order_by(_ROW.token)
            async with self._database.read() as connection:
                names = (await connection.scalars(query.limit(TOKENS_MAX))).all()
            if names:
                yield names
            if len(names) < TOKENS_MAX:
                return
            after = names[-1]

    async def _beside_others(self, names: Sequence[str]) -> tuple[list[str], int]:
        """Returns the tokens that seem to differ, and how many rows all have."""
        async with self._database.read() as connection:
            problems, rows = await _problems(connection, names)
        return [*problems], rows

    async def _alone(self, name: str) -> str:
        """What is wrong with a token while nobody writes to the ledger."""

        async def work(connection: AsyncConnection) -> str:
            await events.lock(connection, "ledger")
            problems, _ = await _problems(connection, [name])
            return problems.get(name, "")

        return await self._database.transact(work)


async def _problems(connection: AsyncConnection, names: Sequence[str]) -> tuple[dict[str, str], int]:
    """What is wrong with tokens, in the order of `names`, and how many rows they have."""
    points = select(_TOKEN.id, _TOKEN.sequence, _TOKEN.remaining).where(_TOKEN.id.in_(names))
    said = {name: _point(*point) for name, *point in await connection.execute(points)}
    carried = select(_CARRIED.token, _CARRIED.sequence, _CARRIED.balance).where(_CARRIED.token.in_(names))
    begins = {name: Point(*point) for name, *point in await connection.execute(carried)}
    chains = {name: Chain(begins.get(name) or (BEGINNING if name in said else None)) for name in names}
    rows = await _follow(connection, chains)
    found = {name: chain.conclude(said[name]) if name in said else chain.problem for name, chain in chains.items()}
    return {name: problem for name, problem in found.items() if problem}, rows


async def _follow(connection: AsyncConnection, chains: Mapping[str, Chain]) -> int:
    """Gives chains the rows of their tokens; returns how many."""
    columns = (_ROW.token, _ROW.sequence, _ROW.quota_before, _ROW.quota_after, _ROW.quota_change)
    rows, token, sequence = 0, "", 0
    while True:
        behind = or_(_ROW.token > token, and_(_ROW.token == token, _ROW.sequence > sequence))
        # The second condition says less than the third, and is one that MySQL finds an index for.
        query = select(*columns).where(_ROW.token.in_(chains), _ROW.token >= token, behind)
        found = (await connection.execute(query.order_by(_ROW.token, _ROW.sequence).limit(ROWS_MAX))).all()
        for name, *link in found:
            chains[name].add(Link(*link))
        rows += len(found)
        if len(found) < ROWS_MAX:
            return rows
        token, sequence = found[-1].token, found[-1].sequence


def _point(sequence: int, remaining: int | None) -> Point:
    return Point(sequence, remaining or 0)
