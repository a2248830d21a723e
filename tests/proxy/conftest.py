"""What tests of the data plane share."""

import pytest

from proxy.upstream import pool as pool_module
from tests.proxy.asgi import Upstream


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """What all pools connect to."""
    upstream = Upstream()
    monkeypatch.setattr(pool_module, "connect", upstream.connect)
    return upstream
