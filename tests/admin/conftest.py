"""What tests of the control plane's HTTP side share."""

from collections.abc import Iterator

import pytest

from tests.admin.api import Api, serving
from tests.admin.memory import Memory


@pytest.fixture
def api() -> Iterator[Api]:
    memory = Memory()
    with serving(memory) as client:
        yield Api(client, memory)
