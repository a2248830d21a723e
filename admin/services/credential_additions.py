"""Credentials to be added: what of a list is there already, what cannot be used, and rows for the rest.

A secret is encrypted while the lock of the configuration is held, as rotations of the key need it (`rotation.py`).
"""

import asyncio
import secrets as randomness
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules import credential_marks, key_lists
from admin.rules.key_lists import InvalidLine, NewCredential
from admin.rules.key_records import LineOutcome, LineResult, Status, TestResult
from admin.services import credential_version
from admin.services.edits import lock_configuration, read_key_pool
from admin.tables import credentials, credentials_gone
from proxy.rules.credentials import DEFAULT_GROUP, Kind
from proxy.secrets import Secrets

_ROW = credentials.c


def purpose(credential_id: str) -> str:
    """What its secret is encrypted for."""
    return f"credential:{credential_id}"


async def add(
    connection: AsyncConnection, secrets: Secrets, entries: Sequence[key_lists.Read], now_ms: int
) -> list[LineResult]:
    """Adds a few thousand at most; returns what became of each, in their order."""
    await lock_configuration(connection)
    groups = {DEFAULT_GROUP, *(await read_key_pool(connection)).groups}
    digests = await asyncio.to_thread(_digests, entries)
    known = await _known(connection, digests)
    ids = credential_marks.new_ids(
        now_ms, randomness.randbelow(credential_marks.ID_NUMBERS - len(entries)), len(entries)
    )
    results: list[LineResult] = []
    fresh: dict[str, NewCredential] = {}
    for one, digest, name in zip(entries, digests, ids, strict=True):
        result = _result(one, digest, name, groups, known)
        if result.outcome is LineOutcome.ADDED and isinstance(one, NewCredential):
            known[digest] = name
            fresh[name] = one
        results.append(result)
    if fresh:
        version = await credential_version.next_version(connection)
        await connection.execute(insert(credentials), await asyncio.to_thread(rows, secrets, fresh, version, now_ms))
    return results


async def put(
    connection: AsyncConnection, secrets: Secrets, credential_id: str, wanted: NewCredential, kind: Kind, now_ms: int
) -> None:
    """Makes a credential of that id, or gives the one that is there another secret."""
    await lock_configuration(connection)
    version = await credential_version.next_version(connection)
    (row,) = await asyncio.to_thread(rows, secrets, {credential_id: wanted}, version, now_ms)
    anew = {name: row[name] for name in ("secret", "digest", "masked", "provider", "version", "updated_at")}
    changed = await connection.execute(update(credentials).where(_ROW.id == credential_id).values(anew))
    if changed.rowcount == 0:
        await connection.execute(delete(credentials_gone).where(credentials_gone.c.id == credential_id))
        await connection.execute(insert(credentials).values(row | {"kind": kind}))


def rows(secrets: Secrets, entries: Mapping[str, NewCredential], version: int, now_ms: int) -> list[dict[str, Any]]:
    """Entries by id, as they go into the table. Encryption takes a while; the caller holds the lock."""
    encrypted = secrets.encrypt_many((one.secret, purpose(name)) for name, one in entries.items())
    return [
        {
            "id": name,
            "digest": credential_marks.digest(one.secret),
            "secret": secret,
            "masked": credential_marks.masked(one.secret),
            "provider": credential_marks.provider(one.secret),
            "pool_group": one.group,
            "kind": Kind.KEY,
            "status": Status.ACTIVE if one.enabled else Status.DISABLED,
            "notes": one.notes,
            "search": credential_marks.search_text(name, credential_marks.masked(one.secret), one.notes),
            "version": version,
            "created_at": now_ms,
            "updated_at": now_ms,
            "requests": 0,
            "successes": 0,
            "errors": 0,
            "last_test_result": TestResult.UNTESTED,
        }
        for (name, one), secret in zip(entries.items(), encrypted, strict=True)
    ]


def _digests(entries: Sequence[key_lists.Read]) -> list[str]:
    return [credential_marks.digest(one.secret) if isinstance(one, NewCredential) else "" for one in entries]


def _result(
    one: key_lists.Read, digest: str, name: str, groups: Collection[str], known: Mapping[str, str]
) -> LineResult:
    if isinstance(one, InvalidLine):
        return LineResult(one.line, LineOutcome.INVALID, problem=one.reason)
    if one.group not in groups:
        return LineResult(one.line, LineOutcome.INVALID, problem=f"there is no group {one.group}")
    if digest in known:
        return LineResult(one.line, LineOutcome.DUPLICATE, known[digest])
    return LineResult(one.line, LineOutcome.ADDED, name)


async def _known(connection: AsyncConnection, digests: Sequence[str]) -> dict[str, str]:
    """The ids of those that are there, by digest."""
    found = await connection.execute(select(_ROW.digest, _ROW.id).where(_ROW.digest.in_(set(digests))))
    return {row.digest: row.id for row in found}
