"""Logging in and out, as references 003 and 000 do it."""

import pytest

from tests.admin.api import AUTHORIZED, TOKEN, Api


@pytest.mark.parametrize(("path", "field"), [("/api/admin/login", "token"), ("/api/login", "password")])
def test_the_token_is_good_for_a_session(api: Api, path: str, field: str) -> None:
    answer = api.client.post(path, json={field: TOKEN})
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert TOKEN not in answer.text
    assert api.client.get("/api/mappings").status_code == 200


@pytest.mark.parametrize(("path", "field"), [("/api/admin/login", "token"), ("/api/login", "password")])
def test_another_is_not(api: Api, path: str, field: str) -> None:
    answer = api.client.post(path, json={field: "wr0ng"})
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert "set-cookie" not in answer.headers
    assert "wr0ng" not in answer.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tokn": "s3cret"}, "tokn: unknown field, the nearest known one is token"),
        ({"token": ["s3cret"]}, "token: found a list, expected text of 1 to 1024 characters"),
        ({"token": ""}, "token: found text, expected text of 1 to 1024 characters"),
        ({}, "token: missing"),
    ],
)
def test_what_is_no_login_is_told_without_the_secret(api: Api, body: object, message: str) -> None:
    answer = api.client.post("/api/admin/login", json=body)
    assert answer.status_code == 400
    assert answer.json() == {"success": False, "error": "bad_request", "message": message}


@pytest.mark.parametrize("path", ["/api/admin/logout", "/api/logout"])
def test_a_logout_ends_the_session(api: Api, path: str) -> None:
    api.client.post("/api/login", json={"password": TOKEN})
    assert api.client.post(path).json() == {"success": True, "message": "Logged out."}
    assert api.client.post(path).status_code == 401


def test_a_logout_with_the_token_ends_the_cookies_session_too(api: Api) -> None:
    cookie = api.client.post("/api/login", json={"password": TOKEN}).headers["set-cookie"].partition(";")[0]
    assert api.client.post("/api/logout", headers=AUTHORIZED).status_code == 200
    assert api.client.get("/api/versions", headers={"cookie": cookie}).status_code == 401


def test_both_are_recorded_without_a_secret(api: Api) -> None:
    api.client.post("/api/login", json={"password": TOKEN})
    api.client.post("/api/logout")
    actions = api.memory.actions.actions
    assert api.outcomes() == [("login", "", "done"), ("logout", "", "done")]
    assert actions[0].actor == actions[1].actor
    assert actions[0].actor.startswith("session:")
    assert actions[0].address == "testclient"
    assert TOKEN not in str(actions)
