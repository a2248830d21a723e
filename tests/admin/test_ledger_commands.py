"""`relaygate ledger verify` and `export`, as they are called."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import delete

from admin import cli, tables
from admin.database import open_database
from admin.migrations import migrate
from proxy.shared_state.keys import METER_LEDGER
from tests.admin.ledgers import Ledger, consumed
from tests.admin.test_token_publisher import plane_at
from tests.redis_servers import EMBEDDED, redis_at


@pytest.fixture(name="folder", autouse=True)
def fixture_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'test.db'}")
    monkeypatch.setenv("RELAYGATE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def fill(folder: Path) -> None:
    async def main() -> None:
        database = open_database(f"sqlite:///{folder / 'test.db'}")
        await migrate(database)
        ledger = Ledger(database)
        await ledger.add("a", "b")
        await ledger.take(*consumed("a", 2, 5))
        await database.close()

    asyncio.run(main())


def test_a_ledger_that_adds_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder)
    assert cli.main(["ledger", "verify"]) == 0
    said = "6 rows of 2 tokens add up; Redis is not compared, since it does not answer\n"
    assert capsys.readouterr().out == said


def test_one_that_does_not_names_the_token(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder)

    async def main() -> None:
        database = open_database(f"sqlite:///{folder / 'test.db'}")
        async with database.write() as connection:
            row = tables.token_quota_logs.c
            await connection.execute(delete(tables.token_quota_logs).where(row.token == "a", row.sequence == 3))
        await database.close()

    asyncio.run(main())
    assert cli.main(["ledger", "verify"]) == 1
    assert capsys.readouterr().out == "a: row 3 is missing, 4 is there\n"


def test_redis_is_compared_where_it_answers(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish(url: str) -> None:
        async with plane_at(url, folder) as plane:
            await plane.publisher.publish()
            await plane.spend("b", 2, 99)

    async def lose(url: str) -> None:
        async with plane_at(url, folder) as plane:
            await plane.client.delete(METER_LEDGER)

    fill(folder)
    with redis_at(EMBEDDED, folder / "redis") as url:
        monkeypatch.setenv("REDIS_URL", url)
        assert cli.main(["ledger", "verify"]) == 0
        asyncio.run(publish(url))
        assert cli.main(["ledger", "verify"]) == 0
        asyncio.run(lose(url))
        assert cli.main(["ledger", "verify"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "6 rows of 2 tokens add up; Redis is not compared, since it is not filled",
        "6 rows of 2 tokens add up; Redis agrees",
        "b: row 2 is missing, and Redis counts 99 after it",
    ]


def test_the_ledger_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder)
    assert cli.main(["ledger", "export"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("token,sequence,created_at,action,")
    assert cli.main(["ledger", "export", "--token", "b"]) == 0
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == ["token", "b"]


def test_without_a_database_there_is_no_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "verify"]) == 2
    assert "there is no ledger" in capsys.readouterr().err
