"""Versions of the configuration."""

import pytest

from tests.admin.api import Api


@pytest.fixture(autouse=True)
def three_versions(api: Api) -> None:
    for number in (1, 2, 3):
        api.ask("POST", "/api/mappings", {"prefix": f"/p{number}", "target": f"https://x{number}.test"})


def test_versions_are_listed_newest_first(api: Api) -> None:
    page = api.ask("GET", "/api/versions?limit=2").json()
    assert page["success"] is True
    assert [version["number"] for version in page["versions"]] == [3, 2]
    assert page["versions"][0].keys() == {"number", "created_at", "actor", "summary"}
    assert page["next"] == 2
    page = api.ask("GET", "/api/versions?limit=2&after=2").json()
    assert [version["number"] for version in page["versions"]] == [1]
    assert page["next"] is None


def test_a_version_shows_what_changed_and_the_whole(api: Api) -> None:
    version = api.ask("GET", "/api/versions/2").json()["version"]
    assert version["document"]["routes"].keys() == {"/p1", "/p2"}
    (change,) = version["changes"]
    assert (change["kind"], change["name"], change["before"]) == ("route", "/p2", None)
    assert change["after"]["target"] == "https://x2.test"


@pytest.mark.parametrize("path", ["4", "99", str(2**53), "4/diff?against=1", "1/diff?against=4"])
def test_one_that_is_absent_is_404(api: Api, path: str) -> None:
    answer = api.ask("GET", f"/api/versions/{path}")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["0", "-1", str(2**53 + 1), str(10**30), "1/diff?against=0"])
def test_a_number_out_of_bounds_is_refused(api: Api, path: str) -> None:
    answer = api.ask("GET", f"/api/versions/{path}")
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["x", "9" * 5000])
def test_what_is_no_number_is_nowhere(api: Api, path: str) -> None:
    assert api.ask("GET", f"/api/versions/{path}").status_code == 404


def test_two_versions_are_compared_in_either_order(api: Api) -> None:
    forth = api.ask("GET", "/api/versions/3/diff?against=1").json()
    assert [(change["name"], change["before"]) for change in forth["changes"]] == [("/p2", None), ("/p3", None)]
    back = api.ask("GET", "/api/versions/1/diff?against=3").json()
    assert [(change["name"], change["after"]) for change in back["changes"]] == [("/p2", None), ("/p3", None)]


def test_against_what_has_to_be_said(api: Api) -> None:
    answer = api.ask("GET", "/api/versions/3/diff")
    assert (answer.status_code, answer.json()["message"]) == (400, "against: missing")


def test_the_way_back_is_a_new_version(api: Api) -> None:
    answer = api.ask("POST", "/api/versions/1/roll-back")
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "version": 4, "message": "Rolled back to version 1."}
    assert api.ask("GET", "/api/mappings").json()["mappings"] == {"/p1": "https://x1.test"}
    assert api.ask("POST", "/api/versions/9/roll-back").status_code == 404
    assert api.outcomes()[-2:] == [("version.roll-back", "1", "done"), ("version.roll-back", "9", "not_found")]
