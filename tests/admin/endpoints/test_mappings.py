"""Mappings, as reference 003 documents them, and what is beyond it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.config import Route
from tests.admin.api import Api

NEW = {"prefix": "/newapi", "target": "https://api.example.com"}


@pytest.fixture(autouse=True)
def mapping(api: Api) -> None:
    assert api.ask("POST", "/api/mappings", NEW).status_code == 201


# ---- as documented --------------------------------------------------------------------------------------------------


def test_the_list_has_the_references_envelope(api: Api) -> None:
    answer = api.ask("GET", "/api/mappings")
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "count": 1,
        "mappings": {"/newapi": "https://api.example.com"},
        "options": {},
        "version": 1,
        "next": None,
    }


def test_a_mapping_is_added(api: Api) -> None:
    answer = api.ask("POST", "/api/mappings", {"prefix": "/other/", "target": "https://API.example.com:443/v1"})
    assert answer.status_code == 201
    assert answer.json() == {"success": True, "prefix": "/other", "message": "Added.", "version": 2}
    assert api.memory.routes.stored["/other"].route == Route(target="https://api.example.com/v1")


def test_a_mapping_to_an_upstream_is_told_as_that(api: Api) -> None:
    body = {"prefix": "/other", "upstream": "api", "base": "/v1"}
    assert api.ask("POST", "/api/mappings", body).status_code == 201
    shown = api.ask("GET", "/api/mappings?q=/other").json()
    assert shown["mappings"] == {"/other": "upstream api/v1"}
    assert shown["options"] == {"/other": {"upstream": "api", "base": "/v1"}}
    one = api.ask("GET", "/api/mappings/other").json()
    assert (one["target"], one["options"]["upstream"]) == ("upstream api/v1", "api")
    assert "target" not in one["options"]


@pytest.mark.parametrize("prefix", ["/newapi", "/newapi/"])
def test_one_that_is_there_is_not_added_again(api: Api, prefix: str) -> None:
    answer = api.ask("POST", "/api/mappings", NEW | {"prefix": prefix})
    assert answer.status_code == 400
    assert answer.json()["success"] is False
    assert answer.json()["error"] == "duplicate"


def test_a_mapping_is_changed(api: Api) -> None:
    answer = api.ask("PUT", "/api/mappings/newapi", {"target": "https://newapi.example.com"})
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "prefix": "/newapi", "message": "Changed.", "version": 2}
    assert api.ask("GET", "/api/mappings").json()["mappings"] == {"/newapi": "https://newapi.example.com"}


def test_a_mapping_is_deleted(api: Api) -> None:
    answer = api.ask("DELETE", "/api/mappings/newapi")
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "prefix": "/newapi", "message": "Deleted.", "version": 2}
    assert api.ask("GET", "/api/mappings").json()["mappings"] == {}


@pytest.mark.parametrize(
    "path", ["/api/mappings/absent", "/api/mappings/a%20b", "/api/mappings/..%2f", "/api/mappings"]
)
def test_one_that_is_absent_is_404(api: Api, path: str) -> None:
    for method, body in (("PUT", {"target": "https://x.test"}), ("DELETE", None)):
        answer = api.ask(method, path, body)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert len(api.memory.routes.stored) == 1


@pytest.mark.parametrize(
    ("body", "word", "says"),
    [
        ({"prefix": "newapi", "target": "https://x.test"}, "bad_request", "prefix: not a prefix, expected a path that"),
        ({"prefix": "/a b", "target": "https://x.test"}, "bad_request", "prefix: not a prefix, expected a path of"),
        (
            {"prefix": "/" + "a" * 512, "target": "https://x.test"},
            "bad_request",
            "prefix: found text, expected text of 1",
        ),
        ({"prefix": "/a", "target": "ftp://x.test"}, "unusable", "target: expected a URL that starts with http"),
        ({"prefix": "/a", "target": "https://"}, "unusable", "target: expected a URL with a host"),
        ({"prefix": "/a"}, "unusable", "target: missing"),
        (
            {"prefix": "/a", "traget": "https://x.test"},
            "bad_request",
            "traget: unknown field, the nearest known one is",
        ),
        ({"prefix": "/a", "target": None}, "bad_request", "target: found null, expected text"),
        ([], "bad_request", "the body: found a list, expected an object"),
    ],
)
def test_what_is_no_mapping_is_told(api: Api, body: object, word: str, says: str) -> None:
    answer = api.ask("POST", "/api/mappings", body)
    assert answer.status_code == 400
    assert answer.json()["error"] == word
    assert answer.json()["message"].startswith(says)


# ---- how a prefix is spelled in a path ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [
        ("/open/ai/v1", ["open/ai/v1", "/open/ai/v1", "%2Fopen%2Fai%2Fv1", "open%2fai/v1/", "%6fpen/ai/v1"]),
        ("/", ["%2F", "%2f"]),
        ("/a%20b", ["a%2520b"]),
        ("/batch-delete", ["batch-delete", "%2Fbatch-delete"]),
    ],
)
def test_a_prefix_of_any_spelling_is_found(api: Api, prefix: str, paths: list[str]) -> None:
    for path in paths:
        assert api.ask("POST", "/api/mappings", NEW | {"prefix": prefix}).status_code == 201
        assert api.ask("GET", f"/api/mappings/{path}").json()["prefix"] == prefix
        assert api.ask("PUT", f"/api/mappings/{path}", {"target": "https://x.test"}).json()["prefix"] == prefix
        assert api.ask("DELETE", f"/api/mappings/{path}").json()["prefix"] == prefix


# ---- options --------------------------------------------------------------------------------------------------------


def test_a_change_leaves_what_it_does_not_name(api: Api) -> None:
    body = {"prefix": "/x", "target": "https://x.test", "head_timeout_s": 5, "tls": {"verify": False}}
    assert api.ask("POST", "/api/mappings", body).status_code == 201
    assert api.ask("PUT", "/api/mappings/x", {"target": "https://y.test"}).status_code == 200
    listed = api.ask("GET", "/api/mappings").json()["options"]
    assert listed.keys() == {"/x"}
    assert listed["/x"].keys() == {"head_timeout_s", "tls"}
    assert listed["/x"]["head_timeout_s"] == 5
    assert listed["/x"]["tls"]["verify"] is False
    assert api.ask("PUT", "/api/mappings/x", {"head_timeout_s": None}).status_code == 200
    shown = api.ask("GET", "/api/mappings/x").json()
    assert shown["target"] == "https://y.test"
    assert shown["options"]["head_timeout_s"] is None
    assert shown["options"]["tls"]["verify"] is False
    assert shown["created_at"] <= shown["updated_at"]


def test_an_empty_change_is_refused(api: Api) -> None:
    answer = api.ask("PUT", "/api/mappings/newapi", {})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_changes_of_different_fields_at_once_lose_none(api: Api) -> None:
    changes = [{"head_timeout_s": 5}, {"idle_timeout_s": 6}, {"via": "relay"}, {"max_connections": 7}] * 5
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda change: api.ask("PUT", "/api/mappings/newapi", change), changes))
    assert {answer.status_code for answer in answers} == {200}
    route = api.memory.routes.stored["/newapi"].route
    assert (route.head_timeout_s, route.idle_timeout_s, route.via, route.max_connections) == (5, 6, "relay", 7)


# ---- search, pages, batches -----------------------------------------------------------------------------------------


@pytest.fixture
def many(api: Api) -> list[str]:
    prefixes = [f"/p{number:03}" for number in range(20)]
    for prefix in prefixes:
        api.ask("POST", "/api/mappings", {"prefix": prefix, "target": f"https://{prefix[1:]}.test"})
    return prefixes


def test_pages_show_each_mapping_once(api: Api, many: list[str]) -> None:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = api.ask("GET", f"/api/mappings?q=.test&limit=6&after={after}").json()
        assert page["count"] == len(page["mappings"]) <= 6
        found += page["mappings"]
        after = page["next"]
    assert found == many


def test_a_full_last_page_has_no_next(api: Api, many: list[str]) -> None:
    page = api.ask("GET", f"/api/mappings?q=.test&limit={len(many)}").json()
    assert (page["count"], page["next"]) == (len(many), None)


@pytest.mark.parametrize(("q", "count"), [("p01", 10), ("P019", 1), ("newapi", 1), ("%25", 0), ("", 21)])
def test_search_looks_at_prefixes_and_targets(api: Api, many: list[str], q: str, count: int) -> None:
    assert len(many) == 20
    assert api.ask("GET", f"/api/mappings?q={q}").json()["count"] == count


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit: Expected `int` >= 1"),
        ("limit=501", "limit: Expected `int` <= 500"),
        ("limit=x", "limit: "),
        ("q=%00", "q: found control characters, expected plain text"),
        ("after=%0A", "after: found control characters, expected plain text"),
        ("q=" + "x" * 513, "q: "),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, query: str, message: str) -> None:
    answer = api.ask("GET", f"/api/mappings?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)


def test_a_batch_is_deleted_in_one_version(api: Api, many: list[str]) -> None:
    before = len(api.memory.versions.versions)
    body = {"prefixes": ["/absent", *many, many[0] + "/"]}
    answer = api.ask("POST", "/api/mappings/batch-delete", body)
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "deleted": many, "absent": ["/absent"]}
    assert len(api.memory.versions.versions) == before + 1
    assert list(api.memory.routes.stored) == ["/newapi"]


@pytest.mark.parametrize("body", [{"prefixes": []}, {"prefixes": ["x"]}, {"prefixes": "/x"}, {}])
def test_what_is_no_batch_is_refused(api: Api, body: object) -> None:
    assert api.ask("POST", "/api/mappings/batch-delete", body).status_code == 400


# ---- the log of actions ---------------------------------------------------------------------------------------------


def test_every_change_is_recorded_with_its_outcome(api: Api) -> None:
    api.ask("POST", "/api/mappings", NEW)
    api.ask("POST", "/api/mappings", NEW | {"prefix": "/x", "target": "nothing"})
    api.ask("PUT", "/api/mappings/newapi", {"target": "https://user:s3cret@x.test"})
    api.ask("PUT", "/api/mappings/newapi", {"target": "https://x.test"})
    api.ask("POST", "/api/mappings/batch-delete", {"prefixes": ["/x", "/y"]})
    api.ask("DELETE", "/api/mappings/newapi")
    api.ask("DELETE", "/api/mappings/newapi")
    assert api.outcomes() == [
        ("mapping.create", "/newapi", "done"),
        ("mapping.create", "/newapi", "duplicate"),
        ("mapping.create", "/x", "unusable"),
        ("mapping.change", "/newapi", "unusable"),
        ("mapping.change", "/newapi", "done"),
        ("mapping.batch-delete", "2 mappings", "done"),
        ("mapping.delete", "/newapi", "done"),
        ("mapping.delete", "/newapi", "not_found"),
    ]
    assert {one.actor for one in api.memory.actions.actions} == {"token"}
    assert "s3cret" not in str(api.memory.actions.actions)
    assert {one.actor for one in api.memory.versions.versions} == {"token"}
