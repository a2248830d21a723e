"""The log of a token's quota as reference 002 documents it."""

from typing import Any

import pytest

from admin.rules.access_tokens import QuotaType, text_of
from admin.rules.token_records import Quota
from proxy.rules.access_tokens import Action, Unit
from tests.admin.api import Api

TEXT = text_of(bytes(range(32)))
DAY_MS = 86_400_000
NOON_MS = 1_763_726_400_000
"""2025-11-21 12:00:00."""


def filled(api: Api, rows: int = 7) -> str:
    """A token whose quota was made at that noon; then one unit a day is consumed."""
    about = api.memory.about_tokens
    token = about.tokens.put("tok_1", TEXT, 10, quota_type=QuotaType.COUNT, unit=Unit.REQUESTS)
    about.logs.rows.clear()
    about.logs.add(token, 0, Quota(10, 10), Action.INIT, created_at=NOON_MS)
    for number in range(1, rows):
        about.logs.add(
            token,
            11 - number,
            Quota(10 - number, 10),
            Action.CONSUME,
            created_at=NOON_MS + number * DAY_MS,
            request_id=f"r{number}",
            execution_success=number % 2 == 0,
            execution_error_type=None if number % 2 == 0 else "timeout",
            usage_mark="exact",
        )
    return token.id


def listed(api: Api, query: str = "") -> Any:
    answer = api.ask("GET", f"/flow/tokens/{TEXT}/quota/logs?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_a_row_has_the_references_fields(api: Api) -> None:
    filled(api, 2)
    first, second = listed(api)["logs"]
    assert first == {
        "id": 2,
        "sequence": 2,
        "token": "flow_0001...1e1f",
        "ws_id": "w",
        "email": "e@x.test",
        "quota_before": 10,
        "quota_after": 9,
        "quota_change": -1,
        "total_after": 10,
        "action": "consume",
        "unit": "requests",
        "request_id": "r1",
        "execution_success": False,
        "execution_error_type": "timeout",
        "execution_error_message": None,
        "usage": "exact",
        "created_at": "2025-11-22 12:00:00",
    }
    assert (second["action"], second["quota_change"], second["execution_success"], second["request_id"]) == (
        "init",
        10,
        None,
        None,
    )


def test_pages(api: Api) -> None:
    filled(api)
    whole = listed(api)
    assert [whole[name] for name in ("total", "page", "page_size", "total_pages")] == [7, 1, 100, 1]
    assert [row["sequence"] for row in whole["logs"]] == [7, 6, 5, 4, 3, 2, 1]
    for page, expected in ((1, [7, 6, 5]), (2, [4, 3, 2]), (3, [1]), (4, [])):
        found = listed(api, f"page={page}&page_size=3")
        assert [row["sequence"] for row in found["logs"]] == expected
        assert (found["total"], found["page"], found["page_size"], found["total_pages"]) == (7, page, 3, 3)
    assert listed(api, "page_size=1000")["page_size"] == 1000


@pytest.mark.parametrize(
    ("query", "sequences"),
    [
        ("start_date=2025-11-26", [7, 6]),
        ("start_date=2025-11-26 12:00:01", [7]),
        ("end_date=2025-11-22", [2, 1]),
        ("end_date=2025-11-22 11:59:59", [1]),
        ("end_date=2025-11-22 12:00:00", [2, 1]),
        ("start_date=2025-11-23&end_date=2025-11-23", [3]),
        ("start_date=2025-11-23T12:00:00Z&end_date=2025-11-24T12:00:00%2B00:00", [4, 3]),
        ("start_date=2099-01-01", []),
    ],
)
def test_spans_of_time(api: Api, query: str, sequences: list[int]) -> None:
    filled(api)
    found = listed(api, query)
    assert [row["sequence"] for row in found["logs"]] == sequences
    assert found["total"] == len(sequences)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("start_date=soon", "start_date: expected a time such as 2026-12-31"),
        ("end_date=2025-02-30", "end_date: expected a time such as 2026-12-31"),
        ("start_date=2025-11-23&end_date=2025-11-21", "end_date: found a time before start_date, expected one"),
        ("page=0", "page: "),
        ("page_size=1001", "page_size: "),
    ],
)
def test_what_cannot_be_asked(api: Api, query: str, message: str) -> None:
    filled(api)
    answer = api.ask("GET", f"/flow/tokens/{TEXT}/quota/logs?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


def test_what_only_time_ends_has_none(api: Api) -> None:
    api.memory.about_tokens.tokens.put("tok_2", text_of(bytes(32)))
    found = api.ask("GET", "/flow/tokens/tok_2/quota/logs").json()["data"]
    assert found == {"logs": [], "total": 0, "page": 1, "page_size": 100, "total_pages": 0}
