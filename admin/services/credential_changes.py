"""Changes and removals of many credentials at once, in the caller's transaction."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.services import credential_version
from admin.services.credential_rows import Status, has_status
from admin.services.edits import lock_configuration, read_key_pool
from admin.services.failures import NoSuchGroup
from admin.tables import credential_bans, credentials, credentials_gone
from proxy.rules.credentials import ALL_MODELS, DEFAULT_GROUP

NAMES_MAX = 10_000
"""Bound values of a statement: see `edits.py`."""
NO_BAN = {"banned_at": null(), "ban_cause": null(), "banned_until": null(), "ban_status": null()}

_ROW = credentials.c
_BAN = credential_bans.c


class BanName(NamedTuple):
    """What a ban is kept under."""

    credential: str
    model: str


class Changed(NamedTuple):
    """How many credentials were there, and the bans that are to end with the change."""

    there: int
    lifted: list[BanName]


async def change(connection: AsyncConnection, ids: Collection[str], values: Mapping[str, Any], now_ms: int) -> Changed:
    """Writes the same values to credentials. Status ACTIVE ends their bans too. Raises NoSuchGroup."""
    if "pool_group" in values:
        await lock_configuration(connection)  # or the group could go meanwhile
        await _refuse_unknown_group(connection, values["pool_group"])
    lifts = values.get("status") == Status.ACTIVE
    version = await credential_version.next_version(connection)
    wanted = {**values, **(NO_BAN if lifts else {}), "version": version, "updated_at": now_ms}
    count = 0
    lifted: list[BanName] = []
    for part in _parts(ids):
        changed = await connection.execute(update(credentials).where(_ROW.id.in_(part)).values(wanted))
        count += changed.rowcount
        if lifts:
            of_models = select(_BAN.credential, _BAN.model).where(_BAN.credential.in_(part))
            lifted += [BanName(name, ALL_MODELS) for name in part]
            lifted += [BanName(*row) for row in await connection.execute(of_models)]
            await connection.execute(delete(credential_bans).where(_BAN.credential.in_(part)))
    return Changed(count, lifted)


async def move_group(connection: AsyncConnection, group: str, to: str, now_ms: int) -> int:
    """Moves all credentials of a group; returns how many. The caller holds the lock of the configuration."""
    version = await credential_version.next_version(connection)
    values = {"pool_group": to, "version": version, "updated_at": now_ms}
    changed = await connection.execute(update(credentials).where(_ROW.pool_group == group).values(values))
    return changed.rowcount


async def remove(connection: AsyncConnection, ids: Collection[str], status: Status | None, now_ms: int) -> Changed:
    """Removes credentials by id, and all of a status."""
    version = await credential_version.next_version(connection)
    chosen: list[ColumnElement[bool]] = [_ROW.id.in_(part) for part in _parts(ids)]
    if status is not None:
        chosen.append(has_status(status, now_ms))
    for which in chosen:
        await credential_version.bury(connection, select(_ROW.id).where(which), version, now_ms)
    # By tombstone, since a ban may begin or end between two statements.
    buried = select(credentials_gone.c.id).where(credentials_gone.c.version == version)
    banned = select(_ROW.id).where(_ROW.id.in_(buried), _ROW.banned_at.is_not(None))
    of_models = select(_BAN.credential, _BAN.model).where(_BAN.credential.in_(buried))
    lifted = [BanName(name, ALL_MODELS) for name in await connection.scalars(banned)]
    lifted += [BanName(*row) for row in await connection.execute(of_models)]
    await connection.execute(delete(credential_bans).where(_BAN.credential.in_(buried)))
    removed = await connection.execute(delete(credentials).where(_ROW.id.in_(buried)))
    return Changed(removed.rowcount, lifted)


async def _refuse_unknown_group(connection: AsyncConnection, group: str) -> None:
    if group != DEFAULT_GROUP and group not in (await read_key_pool(connection)).groups:
        raise NoSuchGroup(group)


def _parts(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), NAMES_MAX):
        yield ordered[start : start + NAMES_MAX]
