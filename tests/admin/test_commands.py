"""Work on the database without a control plane; as real processes it is done in `test_cli.py`."""

import asyncio
from pathlib import Path

import pytest

from admin.commands import apply, export, migrate
from proxy.config import Config, Database, Forwarded, Route
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


def test_an_export_makes_the_tables_that_it_needs(tmp_path: Path) -> None:
    assert asyncio.run(export(Config(data_dir=str(tmp_path)))) == "routes: {}\n"
