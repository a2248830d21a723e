"""One embedded server for all tests here, and the one at TEST_REDIS_URL, if that is set."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.redis_servers import KINDS, own_prefix, redis_at, remove_keys


@pytest.fixture(scope="session", params=KINDS)
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_at(request.param, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def prefix(redis_url: str) -> Iterator[str]:
    """What the keys of one test begin with; they are removed after it."""
    own = own_prefix()
    yield own
    asyncio.run(remove_keys(redis_url, own))
