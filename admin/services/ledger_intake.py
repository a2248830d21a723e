"""Changes of quotas and how requests ended, into SQL: each change once, in the order of its token's numbers.

What a token has left follows in the same transaction. Nobody comes between: whoever takes rows holds their lock.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import bindparam, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.rules import ledger
from admin.rules.ledger import Key, Mark, Owner, Standing
from admin.services.events import Entry, Taken
from proxy.rules.access_tokens import Action
from proxy.shared_state.ledger import Change, Outcome, Row

T = TypeVar("T")

NAMES_MAX = 10_000
"""Bound values of a statement: see `edits.py`."""

_TOKEN = tables.access_tokens.c
_ROW = tables.token_quota_logs.c
_CARRIED = tables.token_quota_carried.c
_FOLLOW = (
    update(tables.access_tokens)
    .where(_TOKEN.id == bindparam("of_id"), _TOKEN.sequence < bindparam("last"))
    .values(
        sequence=bindparam("last"),
        remaining=bindparam("left"),
        total=bindparam("quota"),
        synced_at=bindparam("at"),
    )
)


class LedgerIntake:
    """Takes rows of the ledger. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.on_fork: Callable[[], object] = lambda: None
        """Called once rows are committed that Redis has numbered anew: it has lost changes that SQL has."""

    async def take(self, connection: AsyncConnection, entries: Sequence[Entry]) -> Taken:
        """Writes the changes that are not there yet, and completes those whose outcomes come."""
        read = await asyncio.to_thread(_read, entries)
        tokens = await _known(connection, {one.token for one in read.changes})
        there: set[Mark] = set()
        if doubtful := ledger.doubtful(read.changes, tokens.standings):
            there = await _marks(connection, [one for one in read.changes if one.token in doubtful])
        fresh = ledger.continued(read.changes, tokens.standings, there)
        outcomes = ledger.joined(fresh.changes, read.outcomes)
        if fresh.changes:
            rows = await asyncio.to_thread(ledger.rows, fresh.changes, tokens.owners, outcomes.outcomes)
            await _insert(connection, rows)
            await self._follow(connection, fresh.standings)
        if outcomes.others:
            await _complete(connection, outcomes.others)
        taken = Taken(read.undecodable, fresh.missing)
        return taken._replace(committed=self.on_fork) if fresh.forks else taken

    async def _follow(self, connection: AsyncConnection, standings: Mapping[str, Standing]) -> None:
        """In the order of ids, so that two who change many do not wait for each other."""
        at = self._now_ms()
        rows = [
            {"of_id": token, "last": one.sequence, "left": one.remaining, "quota": one.total, "at": at}
            for token, one in sorted(standings.items())
        ]
        await connection.execute(_FOLLOW, rows)


class _Read(NamedTuple):
    changes: list[Change]
    outcomes: list[Outcome]
    undecodable: list[Entry]


class _Known(NamedTuple):
    owners: dict[str, Owner]
    standings: dict[str, Standing]


def _read(entries: Sequence[Entry]) -> _Read:
    found = [(entry, ledger.read(entry.data)) for entry in entries]
    rows: list[Row] = [row for _, some in found for row in some or ()]
    return _Read(
        [row for row in rows if isinstance(row, Change)],
        [row for row in rows if isinstance(row, Outcome)],
        [entry for entry, some in found if some is None],
    )


async def _insert(connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
    """The driver gets the rows as they are: SQLAlchemy's look at each would take as long as SQLite's own work."""
    statement = insert(tables.token_quota_logs).compile(dialect=connection.dialect, column_keys=ledger.COLUMNS)
    places = [ledger.COLUMNS.index(name) for name in statement.positiontup or ()]
    await connection.exec_driver_sql(str(statement), [*map(itemgetter(*places), rows)])


async def _known(connection: AsyncConnection, names: Collection[str]) -> _Known:
    """What SQL says of tokens; of one that it does not have, what its rows say, if there are any."""
    found = _Known({}, {})
    columns = (_TOKEN.id, _TOKEN.ws_id, _TOKEN.email, _TOKEN.unit, _TOKEN.sequence, _TOKEN.remaining, _TOKEN.total)
    for part in _parts(names):
        for name, ws_id, email, unit, *standing in await connection.execute(
            select(*columns).where(_TOKEN.id.in_(part))
        ):
            found.owners[name] = Owner(ws_id, email, unit)
            sequence, remaining, total = standing
            found.standings[name] = Standing(sequence, remaining or 0, total or 0)
    if unknown := set(names) - found.owners.keys():
        found.standings.update(await _ends(connection, unknown))
    return found


async def _ends(connection: AsyncConnection, names: Collection[str]) -> dict[str, Standing]:
    """Where the rows of tokens end that are in no other table."""
    found: dict[str, Standing] = {}
    for part in _parts(names):
        carried = select(_CARRIED.token, _CARRIED.sequence, _CARRIED.balance, _CARRIED.total)
        for name, *standing in await connection.execute(carried.where(_CARRIED.token.in_(part))):
            found[name] = Standing(*standing)
        last = select(_ROW.token, func.max(_ROW.sequence)).where(_ROW.token.in_(part)).group_by(_ROW.token)
        rows = select(_ROW.token, _ROW.sequence, _ROW.quota_after, _ROW.total_after)
        for name, *standing in await connection.execute(rows.where(tuple_(_ROW.token, _ROW.sequence).in_(last))):
            found[name] = Standing(*standing)
    return found


async def _marks(connection: AsyncConnection, changes: Sequence[Change]) -> set[Mark]:
    """The changes of these times that SQL has, of the same tokens."""
    columns = select(_ROW.token, _ROW.action, _ROW.request_id, _ROW.created_at)
    times = [one.at_ms for one in changes]
    found: set[Mark] = set()
    for part in _parts({one.token for one in changes}):
        query = columns.where(_ROW.token.in_(part), _ROW.created_at.between(min(times), max(times)))
        found.update(
            Mark(name, action, request or "", at) for name, action, request, at in await connection.execute(query)
        )
    return found


async def _complete(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> None:
    """Fills in how requests ended whose changes are there. Many end alike, and are one statement."""
    waiting: dict[Key, list[Outcome]] = {}
    for one in outcomes:
        waiting.setdefault(ledger.key_of(one), []).append(one)
    alike: dict[tuple[Any, ...], list[int]] = {}
    query = select(_ROW.id, _ROW.token, _ROW.request_id).order_by(_ROW.id)
    for part in _parts({request for _, request in waiting}):
        open_rows = query.where(
            _ROW.request_id.in_(part), _ROW.action == Action.CONSUME.value, _ROW.execution_success.is_(None)
        )
        for number, token, request in await connection.execute(open_rows):
            if of_it := waiting.get((token, request)):
                alike.setdefault(ledger.ending(of_it.pop(0)), []).append(number)
    for values, numbers in alike.items():
        for some in _parts(numbers):
            change = update(tables.token_quota_logs).where(_ROW.id.in_(some))
            await connection.execute(change.values(dict(zip(ledger.ENDING, values, strict=True))))


def _parts(whole: Collection[T]) -> Iterator[list[T]]:
    ordered = sorted(whole)  # type: ignore[type-var]
    for start in range(0, len(ordered), NAMES_MAX):
        yield ordered[start : start + NAMES_MAX]
