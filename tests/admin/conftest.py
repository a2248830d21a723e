"""What tests of the control plane share: a database of each kind, and the admin API on a memory of the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.database import Database
from admin.migrations import migrate
from tests.admin.api import Api, serving
from tests.admin.memory import Memory
from tests.sql_servers import KINDS, empty_database, with_database


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def database_url(empty_url: str) -> str:
    """The URL of a database with all tables, and nothing in them."""

    async def story(database: Database) -> None:
        await migrate(database)

    with_database(empty_url, story)
    return empty_url


@pytest.fixture
def api() -> Iterator[Api]:
    memory = Memory()
    with serving(memory) as client:
        yield Api(client, memory)
