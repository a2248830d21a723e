"""A new secret key in the place of the old one, and what is left of a rotation that a crash ended."""

import asyncio
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import rotation
from admin.database import Database
from admin.rotation import rotate
from admin.tables import Encrypted, locks
from proxy.config import ConfigError
from proxy.secrets import VARIABLE, FileSecrets, Secrets, load_secrets, new_key
from tests.admin.test_cli import Shell, refused
from tests.sql_servers import with_database

KEEPS = Table(
    "keeps",
    MetaData(),
    Column("pool", String(20), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("secret", Text),
    Column("beside", Text),
)
COLUMNS = (Encrypted(KEEPS, "secret", "credential"), Encrypted(KEEPS, "beside", "note"))
OLD, NEW = new_key(), new_key()


class Crash(BaseException):
    """The process ends here."""


def text_of(number: int) -> str:
    return f"secret {number}"


async def fill(database: Database, secrets: Secrets) -> None:
    """Three rows, one of which has no secret."""
    async with database.write() as connection:
        await connection.run_sync(KEEPS.create)
        texts = [secrets.encrypt(text_of(number), f"credential:{number}") for number in range(2)]
        await connection.execute(
            insert(KEEPS),
            [{"pool": f"p{number}", "number": number, "secret": one} for number, one in enumerate([*texts, None])],
        )


async def assert_readable(database: Database, secrets: Secrets) -> None:
    async with database.read() as connection:
        rows = (await connection.execute(select(KEEPS).order_by(KEEPS.c.number))).all()
    assert [secrets.decrypt(row.secret, f"credential:{row.number}") for row in rows[:2]] == [text_of(0), text_of(1)]
    assert (rows[2].secret, [row.beside for row in rows]) == (None, [None] * 3)


def of_file(path: Path) -> FileSecrets:
    secrets = load_secrets({}, path)
    assert isinstance(secrets, FileSecrets)
    return secrets


def test_all_secrets_are_under_a_new_key_and_the_old_one_is_gone(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"

    async def story(database: Database) -> None:
        old, running = of_file(path).keys, of_file(path)
        await fill(database, running)
        assert await rotate(database, of_file(path), COLUMNS) == (
            f"2 secrets under a new key; the old one is gone from {path}"
        )
        await assert_readable(database, running)
        assert len(running.keys) == 1
        assert running.keys != old
        await assert_readable(database, Secrets(running.keys, "test"))

    with_database(database_url, story)


def crash_before_the_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSecrets, "replace_keys", raising(0, FileSecrets.replace_keys))


def crash_within_the_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_reencrypted", raising(4, rotation._reencrypted))


def crash_before_the_old_key_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSecrets, "replace_keys", raising(1, FileSecrets.replace_keys))


def raising(after: int, function: Callable[..., object]) -> Callable[..., object]:
    """The function, which at its call number `after`, from 0, ends the process."""
    calls = iter(range(100))

    def called(*arguments: object) -> object:
        if next(calls) == after:
            raise Crash
        return function(*arguments)

    return called


@pytest.mark.parametrize(
    ("crash", "keys"),
    [(crash_before_the_new_key, 1), (crash_within_the_transaction, 2), (crash_before_the_old_key_goes, 2)],
)
def test_after_a_crash_everything_is_readable_and_the_next_rotation_ends_it(
    database_url: str, tmp_path: Path, crash: Callable[[pytest.MonkeyPatch], None], keys: int
) -> None:
    path = tmp_path / "secret.key"
    columns = (COLUMNS[0], COLUMNS[0], COLUMNS[1])  # so that there is a call in the middle of the transaction

    async def story(database: Database) -> None:
        await fill(database, of_file(path))
        with pytest.MonkeyPatch.context() as monkeypatch:
            crash(monkeypatch)
            with pytest.raises(Crash):
                await rotate(database, of_file(path), columns)
        found = of_file(path).keys
        assert len(found) == keys
        await assert_readable(database, of_file(path))
        await rotate(database, of_file(path), columns)
        after = of_file(path)
        assert len(after.keys) == 1
        assert keys == 1 or after.keys == found[:1], "it goes on with the key that was made"
        await assert_readable(database, after)

    with_database(database_url, story)


def test_a_wrong_key_is_told_and_changes_nothing(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"

    async def story(database: Database) -> None:
        right = Secrets([OLD], "test")
        await fill(database, right)
        wrong = of_file(path)
        before = path.read_text()
        said = f"{path}: the credential in row p0, 0 of keeps was encrypted with another key"
        with pytest.raises(ConfigError) as caught:
            await rotate(database, wrong, COLUMNS)
        assert str(caught.value) == said
        assert path.read_text() == before
        await assert_readable(database, right)

    with_database(database_url, story)


def test_keys_of_the_environment_are_the_operators_to_drop(database_url: str) -> None:
    async def story(database: Database) -> None:
        await fill(database, Secrets([OLD], VARIABLE))
        with pytest.raises(ConfigError, match=r"^RELAYGATE_SECRET_KEY: one key, expected a new one in front of it"):
            await rotate(database, Secrets([OLD], VARIABLE), COLUMNS)
        for others, which in (([OLD], "the second key"), ([new_key(), OLD], "the last 2 keys")):
            done = await rotate(database, Secrets([NEW, *others], VARIABLE), COLUMNS)
            assert done == f"2 secrets under the first key of {VARIABLE}; {which} may be dropped"
            await assert_readable(database, Secrets([NEW], VARIABLE))
        with pytest.raises(ConfigError, match=r"was encrypted with another key$"):
            await rotate(database, Secrets([OLD, OLD], VARIABLE), COLUMNS)

    with_database(database_url, story)


def test_one_rotation_at_a_time(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"

    async def story(database: Database) -> None:
        secrets = of_file(path)
        with path.with_name("secret.key.lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(ConfigError, match=r"another rotation is running$"):
                await rotate(database, secrets, ())
        assert await rotate(database, secrets, ()) == f"0 secrets under a new key; the old one is gone from {path}"

    with_database(database_url, story)


def test_who_stores_a_secret_meanwhile_loses_none(database_url: str, tmp_path: Path) -> None:
    """Each takes the lock, encrypts and writes, as whoever stores one has to; rotations go on all the time."""
    path = tmp_path / "secret.key"
    count = 20

    async def story(database: Database) -> None:
        running = of_file(path)
        async with database.write() as connection:
            await connection.run_sync(KEEPS.create)

        async def store(number: int) -> None:
            async def work(connection: AsyncConnection) -> None:
                lock = select(locks.c.name).where(locks.c.name == "config").with_for_update()
                await connection.execute(lock)
                secret = running.encrypt(text_of(number), f"credential:{number}")
                await asyncio.sleep(0.001)
                await connection.execute(insert(KEEPS).values(pool="p", number=number, secret=secret))

            await database.transact(work)

        async def rotations() -> None:
            for _ in range(5):
                await rotate(database, of_file(path), COLUMNS)

        await asyncio.gather(rotations(), *(store(number) for number in range(count)))
        secrets = of_file(path)
        assert len(secrets.keys) == 1
        async with database.read() as connection:
            rows = (await connection.execute(select(KEEPS.c.number, KEEPS.c.secret))).all()
        assert {secrets.decrypt(secret, f"credential:{number}") for number, secret in rows} == set(
            map(text_of, range(count))
        )

    with_database(database_url, story)


def test_the_command_rotates_the_file_of_the_data_directory(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write({})
    path = tmp_path / "data" / "secret.key"
    said = f"0 secrets under a new key; the old one is gone from {path}\n"
    assert shell.done("rotate-key") == said
    first = path.read_text()
    assert shell.done("rotate-key") == said
    assert path.read_text() not in ("", first)
    assert "one key, expected a new one" in refused(shell.run("rotate-key", RELAYGATE_SECRET_KEY=OLD), 2)
    assert shell.done("rotate-key", RELAYGATE_SECRET_KEY=f"{NEW},{OLD}").endswith("the second key may be dropped\n")
    assert "is not a key" in refused(shell.run("rotate-key", RELAYGATE_SECRET_KEY="canary"), 2)
