"""The upstreams of the comparison, started once for the tests that need them."""

import shutil
from collections.abc import Iterator

import pytest

from loadtests.upstreams import MIB, Upstreams, upstreams


@pytest.fixture(scope="session")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    with upstreams(tmp_path_factory.mktemp("upstreams"), 8 * MIB) as started:
        yield started
