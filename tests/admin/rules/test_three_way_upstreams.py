"""What the file changed of an upstream or a backend is done, what it did not stays, and no route loses its own."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import upstream_specs
from admin.rules.three_way_upstreams import plan, result
from proxy.config import Backend, Balancer, Route, Upstream, UpstreamTls
from tests.admin.upstreams import NAMED

Upstreams = dict[str, Upstream]
B1, B2, B3 = (Backend(url=f"https://{name}.example", id=f"b{number}") for number, name in enumerate("abc", 1))
NO_ROUTES: dict[str, Route] = {}


def of(*backends: Backend, balancer: Balancer = Balancer.WEIGHT) -> Upstream:
    return Upstream(backends=backends, balancer=balancer)


def applied(current: Upstreams, wanted: Upstreams, last: Upstreams | None, **routes: Route) -> Upstreams:
    return result(current, plan(current, wanted, last, routes))


def lines(current: Upstream | None, wanted: Upstream | None, last: Upstream | None) -> list[str]:
    """What applying one upstream prints."""
    there, asked, base = ({} if one is None else {"api": one} for one in (current, wanted, last))
    return [line for one in plan(there, asked, base, NO_ROUTES) for line in one.lines()]


@given(NAMED, NAMED, st.none() | NAMED)
def test_what_comes_of_it_is_usable_and_stays_so(current: Upstreams, wanted: Upstreams, last: Upstreams | None) -> None:
    after = applied(current, wanted, last)
    assert upstream_specs.checked(after) == after
    assert applied(after, wanted, wanted) == after
    assert applied(after, wanted, last) == after, "a start that was killed before it could note what it applied"


@given(NAMED, NAMED)
def test_without_edits_through_the_api_the_file_is_what_is_there(last: Upstreams, wanted: Upstreams) -> None:
    after = applied(last, wanted, last)
    assert {name: _unordered(one) for name, one in after.items()} == {
        name: _unordered(one) for name, one in wanted.items()
    }
    assert not any("API" in line for one in plan(last, wanted, last, NO_ROUTES) for line in one.lines())


@given(NAMED, NAMED)
def test_an_unchanged_file_leaves_every_edit(current: Upstreams, file: Upstreams) -> None:
    assert plan(current, file, file, NO_ROUTES) == ()


@given(NAMED, NAMED)
def test_the_first_file_removes_nothing(current: Upstreams, wanted: Upstreams) -> None:
    after = applied(current, wanted, None)
    assert after.keys() == current.keys() | wanted.keys()
    assert all(after[name] == current[name] for name in current.keys() - wanted.keys())


@given(NAMED, NAMED, NAMED)
def test_each_setting_ends_as_the_rule_says(current: Upstreams, wanted: Upstreams, last: Upstreams) -> None:
    after = applied(current, wanted, last)
    for name in current.keys() & wanted.keys() & last.keys():
        for setting in ("balancer", "protocols", "health_check", "retry_statuses"):
            base, there, asked = (getattr(one[name], setting) for one in (last, current, wanted))
            assert getattr(after[name], setting) == (there if asked == base else asked)


def test_a_backend_of_the_api_survives_another_change_of_the_file() -> None:
    last, wanted = of(B1, B2), of(B1, B2, balancer=Balancer.IP_HASH)
    current = of(B1, B2, B3)
    assert applied({"api": current}, {"api": wanted}, {"api": last}) == {
        "api": of(B1, B2, B3, balancer=Balancer.IP_HASH)
    }
    assert lines(current, wanted, last) == ["~ upstream api balancer weight -> ip_hash"]


def test_what_the_api_changed_of_a_backend_survives_another_change_of_it() -> None:
    draining = Backend(url=B1.url, id=B1.id, draining=True)
    heavier = Backend(url=B1.url, id=B1.id, weight=300)
    both = Backend(url=B1.url, id=B1.id, weight=300, draining=True)
    assert applied({"api": of(draining)}, {"api": of(heavier)}, {"api": of(B1)}) == {"api": of(both)}
    assert lines(of(draining), of(heavier), of(B1)) == ["+ upstream api backend b1 weight 300"]


def test_a_backend_that_the_file_drops_goes_with_what_the_api_did_to_it() -> None:
    draining = Backend(url=B1.url, id=B1.id, draining=True)
    assert applied({"api": of(draining, B3)}, {"api": of(B2)}, {"api": of(B1)}) == {"api": of(B3, B2)}
    assert lines(of(draining, B3), of(B2), of(B1)) == [
        "- upstream api backend b1 https://a.example",
        "- upstream api backend b1 draining true (also edited through the API)",
        "+ upstream api backend b2 https://b.example",
    ]


def test_a_backend_that_the_api_removed_comes_back_when_the_file_changes_it() -> None:
    heavier = Backend(url=B1.url, id=B1.id, weight=300)
    assert applied({"api": of(B2)}, {"api": of(heavier, B2)}, {"api": of(B1, B2)}) == {"api": of(B2, heavier)}
    assert lines(of(B2), of(heavier, B2), of(B1, B2))[0] == (
        "+ upstream api backend b1 https://a.example (also edited through the API)"
    )


def test_two_backends_of_one_url_are_that_of_the_file() -> None:
    own = Backend(url=B2.url, id="own")
    assert applied({"api": of(B1, own)}, {"api": of(B1, B2)}, {"api": of(B1)}) == {"api": of(B1, B2)}
    assert lines(of(B1, own), of(B1, B2), of(B1)) == [
        "+ upstream api backend b2 https://b.example",
        "- upstream api backend own https://b.example (also edited through the API)",
    ]
    moved = Backend(url=B3.url, id=B1.id)  # by the API; then the file gives its URL to a backend of its own
    assert applied({"api": of(moved)}, {"api": of(B1, B3)}, {"api": of(B1)}) == {"api": of(B1, B3)}


def test_where_both_do_not_go_together_the_file_counts_alone() -> None:
    clear = Backend(url="http://a.example", id="b1")
    secure = Upstream(backends=(B1,), tls=UpstreamTls(verify=False))
    assert applied({"api": of(clear)}, {"api": secure}, {"api": Upstream(backends=(B1,))}) == {"api": secure}


def test_an_upstream_comes_and_goes_whole() -> None:
    assert lines(None, of(B1), None) == [
        "+ upstream api",
        "+ upstream api backend b1 https://a.example",
        "+ upstream api balancer weight",
    ]
    assert lines(of(B1, B3), None, of(B1)) == [
        "- upstream api",
        "- upstream api backend b1 https://a.example",
        "- upstream api backend b3 https://c.example (also edited through the API)",
        "- upstream api balancer weight",
    ]
    assert applied({"api": of(B1, B3)}, {}, {"api": of(B1)}) == {}


def test_an_upstream_that_a_route_of_the_api_uses_stays_though_the_file_drops_it() -> None:
    there = {"api": of(B1)}
    route = Route(upstream="api")
    (kept,) = plan(there, {}, there, {"/b": route, "/a": route})
    assert kept.lines() == ["= upstream api (kept; the route /a uses it)"]
    assert result(there, (kept,)) == there
    assert plan(there, {}, {}, {"/a": route}) == (), "it is the API's from then on"


def test_an_upstream_that_the_api_removed_comes_back_for_a_route_of_the_file() -> None:
    file = {"api": of(B1)}
    made = plan({}, file, file, {"/a": Route(upstream="api")})
    assert result({}, made) == file
    assert made[0].lines()[0] == "+ upstream api (also edited through the API)"


def _unordered(upstream: Upstream) -> Upstream:
    return msgspec.structs.replace(upstream, backends=tuple(sorted(upstream.backends, key=lambda one: one.id)))
