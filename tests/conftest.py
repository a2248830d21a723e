"""What every test shares: hypothesis without a clock, because a shared machine has no steady one; and turns."""

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.taking_turns import turn_of

settings.register_profile("relaygate", deadline=None, derandomize=True)
settings.load_profile("relaygate")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of pytest-timeout, whose time begins when the test does."""
    with turn_of(item):
        return (yield)
