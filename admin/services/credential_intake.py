"""What workers have asked with credentials, and the bans they made, into SQL: each delta once, as statistics are.

Counts are added to the credential's row and to its hours and days; bans are mirrored, their truth is in Redis. None of
it is a change that workers are told of.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, case, delete, func, insert, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.rules import credential_deltas, deltas
from admin.rules.credential_deltas import ALL, MODEL_CHARACTERS_MAX, Use
from admin.rules.periods import Slot
from admin.services.events import Entry, Taken
from proxy.rules.credentials import ALL_MODELS
from proxy.shared_state.credential_events import BanChange, CredentialCounts, CredentialsDelta

NAMES_MAX = 10_000
"""Bound values of a statement: see `edits.py`."""

_ROW = tables.credentials.c
_SLOT = tables.credential_statistics.c
_WORKER = tables.credential_workers.c
_BAN = tables.credential_bans.c
_USED: BindParameter[int] = bindparam("used_at")
_ADD = (
    update(tables.credentials)
    .where(_ROW.id == bindparam("of_id"))
    .values(
        requests=_ROW.requests + bindparam("more_requests"),
        successes=_ROW.successes + bindparam("more_successes"),
        errors=_ROW.errors + bindparam("more_errors"),
        last_used_at=case((func.coalesce(_ROW.last_used_at, 0) < _USED, _USED), else_=_ROW.last_used_at),
    )
)
_FAIL = (
    update(tables.credentials)
    .where(
        _ROW.id == bindparam("of_id"),
        or_(_ROW.last_error_at.is_(None), _ROW.last_error_at <= bindparam("failed_at")),
    )
    .values(
        last_error=bindparam("word"), last_error_status=bindparam("http_status"), last_error_at=bindparam("failed_at")
    )
)


class CredentialIntake:
    """Takes deltas of workers. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms

    async def take(self, connection: AsyncConnection, entries: Sequence[Entry]) -> Taken:
        """Adds the deltas that are not counted yet. A delta that is missing before one is told."""
        read = await asyncio.to_thread(_read, entries)
        undecodable = [entry for entry, delta in read if delta is None]
        found = [delta for _, delta in read if delta is not None]
        fresh = deltas.fresh(found, await _sequences(connection, {delta.worker for delta in found}))
        if not fresh.deltas:
            return Taken(undecodable)
        now_ms = self._now_ms()
        await _note(connection, fresh.sequences, now_ms)
        known = await _known(connection, _names(fresh.deltas))
        counts = [one for one in credential_deltas.added_up(fresh.deltas) if one.id in known]
        await _add(connection, counts)
        for slot, uses in credential_deltas.rolled_up(fresh.deltas, now_ms / 1000).items():
            await _add_slot(connection, slot, {name: use for name, use in uses.items() if name in known or name == ALL})
        for ban in credential_deltas.last_bans(fresh.deltas):
            if ban.id in known:
                await _mirror(connection, ban)
        return Taken(undecodable, fresh.missing)


def _read(entries: Sequence[Entry]) -> list[tuple[Entry, CredentialsDelta | None]]:
    return [(entry, credential_deltas.read(entry.data)) for entry in entries]


def _names(found: Sequence[CredentialsDelta]) -> set[str]:
    return {one.id for delta in found for one in delta.counts} | {one.id for delta in found for one in delta.bans}


async def _sequences(connection: AsyncConnection, workers: Collection[str]) -> dict[str, int]:
    """Returns the last delta of each of these workers that is counted, where there is one."""
    query = select(_WORKER.worker, _WORKER.sequence).where(_WORKER.worker.in_(workers))
    return {row.worker: row.sequence for row in await connection.execute(query)}


async def _note(connection: AsyncConnection, sequences: Mapping[str, int], now_ms: int) -> None:
    await connection.execute(delete(tables.credential_workers).where(_WORKER.worker.in_(sequences)))
    rows = [{"worker": name, "sequence": last, "seen_at": now_ms} for name, last in sequences.items()]
    await connection.execute(insert(tables.credential_workers), rows)


async def _known(connection: AsyncConnection, names: Collection[str]) -> set[str]:
    """Those that are there, and stay until the transaction ends."""
    found: set[str] = set()
    for part in _parts(names):
        found.update(await connection.scalars(select(_ROW.id).where(_ROW.id.in_(part))))
    return found


async def _add(connection: AsyncConnection, counts: Sequence[CredentialCounts]) -> None:
    """In the order of ids, so that two who change many do not wait for each other."""
    used = [
        {
            "of_id": one.id,
            "more_requests": one.requests,
            "more_successes": one.successes,
            "more_errors": one.errors,
            "used_at": int(one.last_used_s * 1000),
        }
        for one in counts
    ]
    failed = [
        {
            "of_id": one.id,
            "word": one.last_error,
            "http_status": one.last_error_status or None,
            "failed_at": int(one.last_error_s * 1000),
        }
        for one in counts
        if one.last_error
    ]
    if used:
        await connection.execute(_ADD, used)
    if failed:
        await connection.execute(_FAIL, failed)


async def _add_slot(connection: AsyncConnection, slot: Slot, uses: Mapping[str, Use]) -> None:
    """The rows of a slot are read, added to and replaced. Nobody comes between: who takes events holds their lock."""
    for part in _parts(uses):
        here = and_(_SLOT.period_s == slot.period_s, _SLOT.start_s == slot.start_s, _SLOT.credential.in_(part))
        before = (await connection.execute(select(tables.credential_statistics).where(here))).all()
        after = {name: uses[name] for name in part}
        for row in before:
            after[row.credential] = after[row.credential].plus(Use(row.requests, row.successes, row.errors))
        if before:
            await connection.execute(delete(tables.credential_statistics).where(here))
        rows = [{**slot._asdict(), "credential": name, **use._asdict()} for name, use in after.items()]
        await connection.execute(insert(tables.credential_statistics), rows)


async def _mirror(connection: AsyncConnection, ban: BanChange) -> None:
    if ban.model == ALL_MODELS:
        await connection.execute(update(tables.credentials).where(_ROW.id == ban.id).values(_of_all_models(ban)))
        return
    model = ban.model[:MODEL_CHARACTERS_MAX]
    await connection.execute(delete(tables.credential_bans).where(_BAN.credential == ban.id, _BAN.model == model))
    if ban.cause is not None:
        row = {
            "credential": ban.id,
            "model": model,
            "cause": ban.cause,
            "banned_at": int(ban.at_s * 1000),
            "banned_until": int(ban.until_s * 1000),
            "status": ban.status,
        }
        await connection.execute(insert(tables.credential_bans).values(row))


def _of_all_models(ban: BanChange) -> dict[str, Any]:
    if ban.cause is None:
        return dict.fromkeys(("banned_at", "ban_cause", "banned_until", "ban_status"), null())
    return {
        "banned_at": int(ban.at_s * 1000),
        "ban_cause": ban.cause,
        "banned_until": int(ban.until_s * 1000),
        "ban_status": ban.status or None,
    }


def _parts(whole: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(whole)
    for start in range(0, len(ordered), NAMES_MAX):
        yield ordered[start : start + NAMES_MAX]
