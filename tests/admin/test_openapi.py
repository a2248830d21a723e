"""The document against the application: whatever it allows is answered as it says, and what it does not allow too."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from admin.app import create_app
from admin.rules.attempts import Attempts
from tests.admin.api import AUTHORIZED, TOKEN_HASH, there
from tests.admin.memory import Memory

MEMORY = Memory()
SCHEMA = schemathesis.openapi.from_asgi(
    "/schema/openapi.json", create_app(MEMORY.services, token_hash=TOKEN_HASH, probes={"database": there})
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture(autouse=True, scope="module")
def no_bound_on_attempts() -> Iterator[None]:
    """The examples of the logins would lock each other out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attempts, "failed", lambda *_: None)
        yield


@SCHEMA.parametrize()
@settings(
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_keeps_to_its_document(case: "schemathesis.Case[Any]") -> None:
    case.call_and_validate(checks=CHECKS, headers=AUTHORIZED)


@SCHEMA.parametrize()
@settings(max_examples=2, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_it_does_without_the_token_too(case: "schemathesis.Case[Any]") -> None:
    response = case.call_and_validate(checks=CHECKS, headers={"authorization": "none"})
    if case.operation.path not in ("/health", "/readyz"):
        assert response.status_code in (400, 401, 415)
