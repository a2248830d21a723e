"""Differences between routes and between documents are the same differences."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.changes import Change, document, of_documents, of_routes, of_upstreams, summary
from proxy.config import Backend, KeyPool, Route, Upstream
from tests.admin.upstreams import NAMED

ROUTES = st.dictionaries(
    st.sampled_from(["/a", "/b", "/c", "/d"]),
    st.builds(Route, target=st.sampled_from(["http://a", "http://b"]), preserve_host=st.booleans()),
)


@given(ROUTES, ROUTES)
def test_documents_differ_as_their_routes_do(before: dict[str, Route], after: dict[str, Route]) -> None:
    changes = of_routes(before, after)
    stored = [msgspec.json.decode(msgspec.json.encode(document(routes, KeyPool(), {}))) for routes in (before, after)]
    assert of_documents(*stored) == changes
    assert of_documents({}, stored[1]) == of_routes({}, after)
    assert {change.name for change in changes} == {
        prefix for prefix in ["/a", "/b", "/c", "/d"] if before.get(prefix) != after.get(prefix)
    }


@given(NAMED, NAMED)
def test_documents_differ_as_their_upstreams_do(before: dict[str, Upstream], after: dict[str, Upstream]) -> None:
    stored = [msgspec.json.decode(msgspec.json.encode(document({}, KeyPool(), one))) for one in (before, after)]
    assert of_documents(*stored) == of_upstreams(before, after)
    assert {change.name for change in of_upstreams(before, after)} == {
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    }


def test_no_upstreams_are_no_section() -> None:
    assert document({}, KeyPool(), {}) == {"routes": {}}
    upstream = Upstream(backends=(Backend(url="https://a.example", id="b1"),))
    spec = {"backends": [{"url": "https://a.example", "id": "b1"}]}
    assert document({}, KeyPool(), {"api": upstream}) == {"routes": {}, "upstreams": {"api": spec}}
    assert of_upstreams({"api": upstream}, {}) == [Change("upstream", "api", spec, None)]


def test_a_change_is_told_as_json_has_it() -> None:
    before, after = Route(target="http://a"), Route(target="http://a", preserve_host=True)
    assert of_routes({"/a": before, "/b": before}, {"/a": after, "/c": before}) == [
        Change("route", "/a", {"target": "http://a"}, {"target": "http://a", "preserve_host": True}),
        Change("route", "/b", {"target": "http://a"}, None),
        Change("route", "/c", None, {"target": "http://a"}),
    ]


def test_summaries() -> None:
    added, changed, removed = (
        Change("route", "/a", None, {}),
        Change("route", "/b", {}, {}),
        Change("route", "/c", {}, None),
    )
    assert summary("create", [added]) == "create route /a"
    assert summary("apply", [added, added, changed, removed]) == "apply: 2 added, 1 changed, 1 removed"
    assert summary("delete", [removed, removed]) == "delete: 2 removed"
