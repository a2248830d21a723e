"""The envelope under `/flow`: what the admin API refuses there has it too, and nothing else does."""

import re

import pytest

from admin.flow_answers import text_of
from tests.admin.api import AUTHORIZED, serving
from tests.admin.memory import Memory


@pytest.mark.parametrize(
    ("path", "headers", "status", "type_"),
    [
        ("/flow/nothing", AUTHORIZED, 404, "NotFound"),
        ("/flow/nothing", {}, 401, "Unauthorized"),
        ("/flow", {"x-admin-key": "wrong"}, 401, "Unauthorized"),
    ],
)
def test_a_refusal_has_the_envelope(path: str, headers: dict[str, str], status: int, type_: str) -> None:
    with serving(Memory()) as client:
        answer = client.get(path, headers={**headers, "X-Request-Id": "mine-1"})
    told = answer.json()
    assert answer.status_code == status
    assert (told["success"], told["error"]["type"], told["request_id"]) == (False, type_, "mine-1")
    assert answer.headers["x-request-id"] == "mine-1"
    assert told["error"]["message"]
    assert told["error"]["details"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told["timestamp"])


def test_an_id_that_is_not_sane_is_not_repeated() -> None:
    with serving(Memory()) as client:
        asked = [client.get("/flow/x", headers={"X-Request-Id": "a b"}).json()["request_id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in asked)
    assert asked[0] != asked[1]


def test_elsewhere_a_refusal_is_as_it_was() -> None:
    with serving(Memory()) as client:
        assert client.get("/flowers", headers=AUTHORIZED).json().keys() == {"success", "error", "message"}


def test_times_are_texts() -> None:
    assert text_of(1_763_700_000_001) == "2025-11-21 04:40:00"
