"""What became of one request."""

import pytest

from tests.admin.api import Api


def test_what_a_worker_remembers_is_shown(api: Api) -> None:
    api.memory.about_keys.explanations.known["req-1"] = {"route": "/openai", "attempts": [{"credential": "key_1"}]}
    assert api.ask("GET", "/admin/explain/req-1").json() == {
        "success": True,
        "data": {"route": "/openai", "attempts": [{"credential": "key_1"}]},
    }


def test_where_workers_cannot_be_asked_nobody_says_that_they_know_nothing(api: Api) -> None:
    api.memory.about_keys.explanations.is_cut_off = True
    answer = api.ask("GET", "/admin/explain/req-1")
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert "Redis" in answer.json()["message"]


@pytest.mark.parametrize(("request_id", "status"), [("req-2", 404), ("a%20b", 400), ("x" * 201, 400)])
def test_what_nobody_remembers_is_404(api: Api, request_id: str, status: int) -> None:
    assert api.ask("GET", f"/admin/explain/{request_id}").status_code == status
