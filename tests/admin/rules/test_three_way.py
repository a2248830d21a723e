"""What the file changed is done, what it did not touch stays, and where both did, the file wins and it is said."""

from hypothesis import given
from hypothesis import strategies as st

from admin.rules.three_way import Difference, plan
from proxy.config import Route

A, B, C = (Route(target=f"https://{name}.example") for name in "abc")
Routes = dict[str, Route]
ROUTES = st.dictionaries(st.sampled_from(["/1", "/2", "/3", "/4", "/5"]), st.sampled_from([A, B, C]))


@given(ROUTES, ROUTES, st.none() | ROUTES)
def test_each_route_ends_as_the_rule_says(current: Routes, wanted: Routes, last: Routes | None) -> None:
    result = plan(current, wanted, last).result(current)
    base = last or {}
    for prefix in current.keys() | wanted.keys() | base.keys():
        touched = wanted.get(prefix) != base.get(prefix)
        assert result.get(prefix) == (wanted if touched else current).get(prefix)


@given(ROUTES, ROUTES, st.none() | ROUTES)
def test_parts_are_what_they_are_called(current: Routes, wanted: Routes, last: Routes | None) -> None:
    made = plan(current, wanted, last)
    base = last or {}
    assert all(one.before is None and one.after is not None for one in made.adds)
    assert all(one.before is not None and one.after is not None and one.before != one.after for one in made.changes)
    assert all(one.before is not None and one.after is None for one in made.removals)
    all_of_them = (*made.adds, *made.changes, *made.removals)
    names = [one.prefix for one in all_of_them]
    assert len(names) == len(set(names)) == len(made.lines())
    assert bool(made) == bool(names)
    for one in all_of_them:
        assert (one.before, one.after) == (current.get(one.prefix), wanted.get(one.prefix))
        assert (one in made.conflicts) == (current.get(one.prefix) != base.get(one.prefix))
    assert set(made.conflicts) <= set(all_of_them)


@given(ROUTES, ROUTES, st.none() | ROUTES)
def test_a_file_applied_twice_does_nothing_the_second_time(
    current: Routes, wanted: Routes, last: Routes | None
) -> None:
    after = plan(current, wanted, last).result(current)
    assert not plan(after, wanted, wanted)
    again = plan(after, wanted, last)  # a start that was killed before it could note what it applied
    assert again.result(after) == after


@given(ROUTES, ROUTES)
def test_without_edits_through_the_api_the_file_is_what_is_there(last: Routes, wanted: Routes) -> None:
    made = plan(last, wanted, last)
    assert made.result(last) == wanted
    assert not made.conflicts


@given(ROUTES, ROUTES)
def test_an_unchanged_file_leaves_every_edit(current: Routes, file: Routes) -> None:
    assert not plan(current, file, file)


@given(ROUTES, ROUTES)
def test_the_first_file_removes_nothing(current: Routes, wanted: Routes) -> None:
    made = plan(current, wanted, None)
    assert not made.removals
    assert made.result(current) == current | wanted


def test_conflicts() -> None:
    current = {"/edited": B, "/edited then dropped": B, "/made by both": B}
    wanted = {"/edited": C, "/deleted": C, "/made by both": C}
    last = {"/edited": A, "/edited then dropped": A, "/deleted": A, "/deleted and dropped": A}
    made = plan(current, wanted, last)
    assert made.adds == (Difference("/deleted", None, C),)
    assert made.changes == (Difference("/edited", B, C), Difference("/made by both", B, C))
    assert made.removals == (Difference("/edited then dropped", B, None),)
    assert set(made.conflicts) == {*made.adds, *made.changes, *made.removals}
    assert made.result(current) == wanted


def test_what_both_made_alike_is_no_conflict() -> None:
    assert not plan({"/a": A}, {"/a": A}, None)
    assert not plan({"/a": B}, {"/a": B}, {"/a": A})
    assert not plan({}, {}, {"/a": A})


def test_a_route_that_leads_to_an_upstream_is_told_as_that() -> None:
    current = {"/a": A, "/b": Route(upstream="api", base="/v1"), "/c": Route(upstream="api")}
    wanted = {
        "/a": Route(upstream="api"),
        "/b": Route(upstream="api", base="/v2", via="relay"),
        "/d": Route(upstream="b"),
    }
    assert plan(current, wanted, current).lines() == [
        "~ /a https://a.example -> upstream api",
        "~ /b upstream api/v1 -> upstream api/v2 (via)",
        "- /c upstream api",
        "+ /d upstream b",
    ]


def test_a_plan_can_be_read() -> None:
    slow = Route(target=B.target, head_timeout_s=5.0, preserve_host=True)
    current = {"/b": A, "/c": A, "/d": B}
    made = plan(current, {"/a": A, "/b": B, "/d": slow}, {"/c": A, "/d": A})
    assert made.lines() == [
        "+ /a https://a.example",
        "~ /b https://a.example -> https://b.example (also edited through the API)",
        "- /c https://a.example",
        "~ /d https://b.example (head_timeout_s, preserve_host) (also edited through the API)",
    ]
