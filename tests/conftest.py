"""What every test shares: hypothesis without a clock, because a shared machine has no steady one; and turns."""

from collections.abc import Callable, Generator
from time import monotonic

import pytest
from hypothesis import settings

from tests.standstills import Standstills
from tests.taking_turns import turn_of

settings.register_profile("relaygate", deadline=None, derandomize=True)
settings.load_profile("relaygate")

STANDSTILLS = Standstills()


@pytest.fixture
def stood_still_s() -> Callable[[], float]:
    """How long the machine has stood still since the test began, as far as it was longer than a second at a time."""
    began_s = monotonic()
    return lambda: sum(STANDSTILLS.since(began_s))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of pytest-timeout, whose time begins when the test does."""
    with turn_of(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure tells whether the machine stood still meanwhile."""
    report = yield
    lasted = STANDSTILLS.since(monotonic() - call.duration)
    if report.failed and lasted:
        report.sections.append(("the machine stood still", ", ".join(f"{seconds:.1f} s" for seconds in lasted)))
    return report
