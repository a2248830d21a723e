"""Pool groups, as reference 001 documents them."""

import pytest

from admin.rules.key_records import Status
from tests.admin.api import Api

NEW = {"id": "premium", "name": "付费池", "priority": 3}


@pytest.fixture(autouse=True)
def group(api: Api) -> None:
    assert api.ask("POST", "/admin/pool-groups", NEW).status_code == 201


def test_groups_are_listed_by_priority_with_their_keys(api: Api) -> None:
    keys = api.memory.about_keys.keys
    keys.add("sk-1", group="premium")
    keys.add("sk-2", group="premium", status=Status.BANNED)
    answer = api.ask("GET", "/admin/pool-groups").json()
    assert answer == {
        "success": True,
        "data": [
            NEW | {"total": 2, "active": 1, "disabled": 0, "banned": 1, "usage_rate": 0.5},
            {
                "id": "default",
                "name": "",
                "priority": 100,
                "total": 0,
                "active": 0,
                "disabled": 0,
                "banned": 0,
                "usage_rate": 0.0,
            },
        ],
    }


def test_a_group_is_changed(api: Api) -> None:
    assert api.ask("PUT", "/admin/pool-groups/premium", {"priority": 1}).json()["data"]["priority"] == 1
    assert api.ask("PUT", "/admin/pool-groups/default", {"name": "rest"}).json()["data"]["name"] == "rest"
    assert api.ask("PUT", "/admin/pool-groups/premium", {}).status_code == 400
    assert api.ask("PUT", "/admin/pool-groups/absent", {"priority": 1}).status_code == 404


def test_deleting_moves_its_keys_to_default(api: Api) -> None:
    api.memory.about_keys.keys.add("sk-1", group="premium")
    answer = api.ask("DELETE", "/admin/pool-groups/premium")
    assert answer.json()["data"] == {"id": "premium", "moved": 1}
    assert api.memory.about_keys.keys.records["key_1"].group == "default"
    assert api.ask("DELETE", "/admin/pool-groups/premium").status_code == 404
    assert api.memory.actions.actions[1].detail == {"moved": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "", NEW, 409, "duplicate"),
        ("POST", "", {"id": "a b"}, 400, "bad_request"),
        ("POST", "", {"id": "a", "priority": -1}, 400, "bad_request"),
        ("POST", "", {"id": "a", "name": "\0"}, 400, "bad_request"),
        ("PUT", "/premium", {"name": "\n"}, 400, "bad_request"),
        ("DELETE", "/default", None, 409, "in_use"),
    ],
)
def test_what_cannot_be_done_is_told(api: Api, method: str, path: str, body: object, status: int, word: str) -> None:
    answer = api.ask(method, f"/admin/pool-groups{path}", body)
    assert (answer.status_code, answer.json()["error"]) == (status, word)
