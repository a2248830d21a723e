"""A new secret key in the place of the old one (`relaygate rotate-key`).

Where the keys lie in the file, four steps, each of which may be the last before a crash:

1. Every secret is read, so that a wrong key is told before anything is changed.
2. A new key goes in front of the old ones. From here on everybody encrypts with it, and decrypts with all.
3. Every secret is written anew under the new key, in one transaction. Credentials count their versions from a new time
   on then, so that all are published anew.
4. The old keys leave the file.

A file with several keys is a rotation that did not come to its end: the next one goes on with step 3 and the key that
is there. Step 3 holds the lock of the configuration. So must whoever stores a secret, and encrypt it while holding it:
then it is either there to be written anew, or under the new key already, and step 4 takes away no key that is needed.

Where the keys are in RELAYGATE_SECRET_KEY, putting a new one in front and dropping the others is the operator's part.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Column, ColumnElement, bindparam, case, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.tables import ENCRYPTED, Encrypted, credentials_version, locks
from proxy.config import ConfigError
from proxy.secrets import VARIABLE, FileSecrets, SecretError, Secrets, new_key


async def rotate(database: Database, secrets: Secrets, columns: Sequence[Encrypted] = ENCRYPTED) -> str:
    """Writes every secret anew under a new key; returns what was done, in a line. Raises ConfigError, DatabaseDown.

    The database has all its tables.
    """
    if isinstance(secrets, FileSecrets):
        with _alone(Path(secrets.where)):
            await _read_all(database, secrets, columns)
            if len(secrets.keys) == 1:
                secrets.replace_keys([new_key(), *secrets.keys])
            count = await _reencrypt_all(database, secrets, columns)
            secrets.replace_keys(secrets.keys[:1])
        return f"{_counted(count)} under a new key; the old one is gone from {secrets.where}"
    others = len(secrets.keys) - 1
    if others == 0:
        raise ConfigError(VARIABLE, "one key, expected a new one in front of it, with a comma between")
    count = await _reencrypt_all(database, secrets, columns)
    which = "the second key" if others == 1 else f"the last {others} keys"
    return f"{_counted(count)} under the first key of {VARIABLE}; {which} may be dropped"


async def _read_all(database: Database, secrets: Secrets, columns: Sequence[Encrypted]) -> None:
    async with database.read() as connection:
        for one in columns:
            await _reencrypted(connection, secrets, one)


async def _reencrypt_all(database: Database, secrets: Secrets, columns: Sequence[Encrypted]) -> int:
    """Returns how many secrets there are."""

    async def work(connection: AsyncConnection) -> int:
        await connection.execute(select(locks.c.name).where(locks.c.name == "config").with_for_update())
        count = 0
        for one in columns:
            rows = await _reencrypted(connection, secrets, one)
            if rows:
                keys = one.table.primary_key.columns
                of_row = [column == bindparam(f"of_{column.name}") for column in keys]
                statement = update(one.table).where(*of_row).values({one.column: bindparam("secret")})
                await connection.execute(statement, rows)
            count += len(rows)
        await connection.execute(update(credentials_version).values(made_at=_later(credentials_version.c.made_at)))
        return count

    return await database.transact(work)


def _later(made_at: Column[int]) -> ColumnElement[int]:
    """Now, but never the time that is there."""
    now_ms = time.time_ns() // 1_000_000
    return case((made_at < now_ms, now_ms), else_=made_at + 1)


async def _reencrypted(connection: AsyncConnection, secrets: Secrets, one: Encrypted) -> list[dict[str, object]]:
    """The secrets of a column under the first key, each with the primary key of its row."""
    keys = one.table.primary_key.columns
    column = one.table.c[one.column]
    rows: list[dict[str, object]] = []
    for text, *key in await connection.execute(select(column, *keys).where(column.is_not(None))):
        try:
            secret = secrets.reencrypt(text)
        except SecretError:
            row = ", ".join(map(str, key))
            problem = f"the {one.purpose} in row {row} of {one.table.name} was encrypted with another key"
            raise ConfigError(secrets.where, problem) from None
        rows.append({"secret": secret, **{f"of_{name.name}": value for name, value in zip(keys, key, strict=True)}})
    return rows


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two rotations at once would each put a key in front, and the one that is written over would be lost."""
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(str(path), "another rotation is running") from None
    finally:
        os.close(descriptor)


def _counted(count: int) -> str:
    return f"{count} secret{'' if count == 1 else 's'}"
