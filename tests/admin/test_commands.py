"""Work on the database without a control plane; as real processes it is done in `test_cli.py`."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from admin import migrations
from admin.commands import apply, export, migrate
from admin.control_plane import looked_at, opened
from proxy import settings
from proxy.config import Algorithm, Config, ConfigError, Database, Forwarded, KeyPool, PoolGroup, Route
from tests.sql_servers import KINDS, empty_database


@pytest.mark.parametrize("kind", KINDS)
def test_each_database_is_migrated_applied_to_and_exported(kind: str, tmp_path: Path) -> None:
    routes = {
        "/a": Route(target="http://a.example"),
        "/b": Route(target="http://b.example", forwarded=Forwarded.APPEND),
    }

    async def story(config: Config) -> None:
        assert len(await migrate(config)) > 0
        assert await migrate(config) == []
        wanted = "+ /a http://a.example\n+ /b http://b.example\n"
        assert await apply(config, dry_run=True) == wanted
        assert await apply(config, dry_run=False) == wanted
        assert await apply(config, dry_run=False) == "nothing changes\n"
        exported = "routes:\n  /a: http://a.example\n  /b:\n    target: http://b.example\n    forwarded: append\n"
        assert await export(config) == exported

    with empty_database(kind, tmp_path) as url:
        asyncio.run(story(Config(database=Database(url=url), data_dir=str(tmp_path), routes=routes)))


@pytest.mark.parametrize("kind", KINDS)
def test_looking_makes_no_tables(kind: str, tmp_path: Path) -> None:
    async def story(config: Config) -> None:
        assert await apply(config, dry_run=True) == "+ /a http://a.example\n"
        with pytest.raises(ConfigError, match=r"^database: .*: there is none yet, so there is nothing to export$"):
            await export(config)
        async with looked_at(config) as database:
            assert await migrations.missing(database) == migrations.known()

    with empty_database(kind, tmp_path) as url:
        routes = {"/a": Route(target="http://a.example")}
        asyncio.run(story(Config(database=Database(url=url), data_dir=str(tmp_path / "data"), routes=routes)))
    assert not (tmp_path / "test.db").exists()
    assert not (tmp_path / "data").exists()


def test_tables_of_another_version_are_told_in_one_line_and_left(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))

    async def story(step: str) -> list[str]:
        async with opened(config) as database, database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = :step"), {"step": step})
        said = []
        for look in (apply(config, dry_run=True), export(config)):
            with pytest.raises(ConfigError) as caught:
                await look
            said.append(str(caught.value))
        return said

    for said in asyncio.run(story("9999")):
        assert "it was made by a newer relaygate (step 9999)" in said


def test_an_older_database_is_not_migrated_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(data_dir=str(tmp_path))
    asyncio.run(migrate(config))
    steps = [*migrations.known(), "one more"]
    monkeypatch.setattr(migrations, "known", lambda: steps)
    for look in (apply(config, dry_run=True), export(config)):
        with pytest.raises(ConfigError, match=r"steps are missing \(one more\), which `relaygate migrate` makes$"):
            asyncio.run(look)


def test_the_key_pool_is_applied_and_exported(tmp_path: Path) -> None:
    pool = KeyPool(algorithm=Algorithm.LEAST_USED, retry_statuses=(429,), groups={"main": PoolGroup(priority=1)})
    config = Config(data_dir=str(tmp_path / "data"), routes={}, key_pool=pool)
    lines = '+ key_pool.algorithm least-used\n+ key_pool.groups.main {"priority":1}\n+ key_pool.retry_statuses [429]\n'

    async def story() -> str:
        assert await apply(config, dry_run=True) == lines
        assert await apply(config, dry_run=False) == lines
        assert await apply(config, dry_run=True) == "nothing changes\n"
        return await export(config)

    exported = asyncio.run(story())
    (tmp_path / "relaygate.yaml").write_text(exported)
    assert settings.load({}, {}, tmp_path).key_pool == pool
