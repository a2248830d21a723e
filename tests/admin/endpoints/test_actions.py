"""The log of actions."""

import pytest

from tests.admin.api import TOKEN, Api


@pytest.fixture(autouse=True)
def some(api: Api) -> None:
    api.client.post("/api/login", json={"password": TOKEN})
    for number in range(3):
        api.ask("POST", "/api/mappings", {"prefix": f"/p{number}", "target": "https://x.test"})


def test_actions_are_listed_newest_first(api: Api) -> None:
    page = api.ask("GET", "/api/actions?limit=3").json()
    assert [action["target"] for action in page["actions"]] == ["/p2", "/p1", "/p0"]
    page = api.ask("GET", f"/api/actions?limit=3&after={page['next']}").json()
    assert [action["action"] for action in page["actions"]] == ["login"]
    assert page["next"] is None
    assert page["actions"][0].keys() == {"id", "at", "actor", "address", "action", "target", "detail", "outcome"}


def test_they_can_be_narrowed_down(api: Api) -> None:
    def count(query: str) -> int:
        return len(api.ask("GET", f"/api/actions?{query}").json()["actions"])

    assert count("actor=token") == 3
    assert count("action=login") == 1
    assert count("actor=nobody") == 0
    assert count("since=0") == 4
    assert count(f"since={2**53}") == 0


@pytest.mark.parametrize("query", ["actor=%00", "action=%1f", "since=-1", f"since={2**64}", "after=0", "limit=501"])
def test_a_wrong_parameter_is_refused(api: Api, query: str) -> None:
    answer = api.ask("GET", f"/api/actions?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(query.partition("=")[0])


def test_reading_is_no_action(api: Api) -> None:
    before = len(api.memory.actions.actions)
    for path in ("/api/actions", "/api/mappings", "/api/versions"):
        api.ask("GET", path)
    assert len(api.memory.actions.actions) == before
