"""Changes and removals of many credentials at once, in the caller's transaction."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import delete, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules.key_records import Status
from admin.services import credential_version
from admin.services.credential_bans import BanName
from admin.services.credential_rows import IS_KEY, has_status
from admin.services.edits import lock_configuration, read_key_pool
from admin.services.failures import NoSuchGroup
from admin.tables import credential_bans, credentials, credentials_gone
from proxy.rules.credentials import ALL_MODELS, DEFAULT_GROUP, Ban, BanCause

NAMES_MAX = 10_000
"""Bound values of a statement: see `edits.py`."""
NO_BAN = {"banned_at": null(), "ban_cause": null(), "banned_until": null(), "ban_status": null()}

_ROW = credentials.c
_BAN = credential_bans.c
_GONE = credentials_gone.c


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


async def note(connection: AsyncConnection, credential_id: str, values: Mapping[str, Any]) -> int:
    """Writes what workers need not be told; returns whether the credential is there."""
    return (await connection.execute(update(credentials).where(_ROW.id == credential_id).values(values))).rowcount


def out_of_quota(now_ms: int, ban_s: float, http_status: int) -> Ban:
    """What a test call that said so makes of a credential."""
    now_s = now_ms / 1000
    return Ban(BanCause.OUT_OF_QUOTA, now_s, now_s + ban_s, strikes=1, status=http_status)


def mirrored(ban: Ban) -> dict[str, Any]:
    """A ban of all models as a row has it."""
    return {
        "banned_at": int(ban.since_s * 1000),
        "ban_cause": ban.cause,
        "banned_until": int(ban.until_s * 1000),
        "ban_status": ban.status,
    }


async def move_group(connection: AsyncConnection, group: str, to: str, now_ms: int) -> int:
    """Moves all credentials of a group; returns how many. The caller holds the lock of the configuration."""
    version = await credential_version.next_version(connection)
    values = {"pool_group": to, "version": version, "updated_at": now_ms}
    changed = await connection.execute(update(credentials).where(_ROW.pool_group == group).values(values))
    return changed.rowcount


async def remove(connection: AsyncConnection, ids: Collection[str], now_ms: int) -> list[str]:
    """Removes credentials; returns which of them were there."""
    version = await credential_version.next_version(connection)
    for part in _parts(ids):
        await credential_version.bury(connection, select(_ROW.id).where(_ROW.id.in_(part)), version, now_ms)
    await _remove_buried(connection, version)
    return list(await connection.scalars(select(_GONE.id).where(_GONE.version == version)))


async def remove_all_of(connection: AsyncConnection, status: Status, now_ms: int) -> int:
    """Removes all keys of a status; returns how many there were."""
    version = await credential_version.next_version(connection)
    chosen = select(_ROW.id).where(IS_KEY, has_status(status, now_ms))
    await credential_version.bury(connection, chosen, version, now_ms)
    return await _remove_buried(connection, version)


async def _remove_buried(connection: AsyncConnection, version: int) -> int:
    """By tombstone, since a ban may begin or end between two statements."""
    buried = select(_GONE.id).where(_GONE.version == version)
    await connection.execute(delete(credential_bans).where(_BAN.credential.in_(buried)))
    return (await connection.execute(delete(credentials).where(_ROW.id.in_(buried)))).rowcount


async def _refuse_unknown_group(connection: AsyncConnection, group: str) -> None:
    if group != DEFAULT_GROUP and group not in (await read_key_pool(connection)).groups:
        raise NoSuchGroup(group)


def _parts(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), NAMES_MAX):
        yield ordered[start : start + NAMES_MAX]
