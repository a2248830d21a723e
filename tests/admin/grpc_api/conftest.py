"""One service for all tests that leave it as it is, as it was at first for each."""

from collections.abc import Iterator

import pytest

from tests.admin.grpc_api.service import Caller, Service, calling, fill, running


@pytest.fixture(scope="session")
def listening() -> Iterator[tuple[Service, Caller]]:
    with running() as service, calling(service.port) as call:
        yield service, call


@pytest.fixture
def service(listening: tuple[Service, Caller]) -> Service:
    service, _ = listening
    fill(service.memory)
    return service


@pytest.fixture
def call(listening: tuple[Service, Caller]) -> Caller:
    return listening[1]
