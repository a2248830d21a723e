"""What adding routes and upstreams does to those that are there."""

import pytest

from admin.rules import upstream_specs
from admin.rules.additions import Existing, Wanted, additions
from admin.rules.route_specs import checked
from admin.rules.three_way_upstreams import result
from proxy.config import Backend, Balancer, HealthCheck, Protocols, Route, Upstream, UpstreamTls

A, B, C = (Route(target=f"https://{name}.example") for name in "abc")
OWN = Route(target="https://own.example", head_timeout_s=5.0)
THERE = {"/same": A, "/taken": OWN, "/other": B}
WANTED = {"/new": C, "/same": A, "/taken": C}


@pytest.mark.parametrize(
    ("existing", "taken", "lines"),
    [
        (
            Existing.KEEP,
            OWN,
            ["+ /new https://c.example", "= /taken https://own.example (kept; not https://c.example)"],
        ),
        (
            Existing.REPLACE,
            Route(target="https://c.example", head_timeout_s=5.0),
            ["+ /new https://c.example", "~ /taken https://own.example -> https://c.example"],
        ),
    ],
)
def test_what_is_new_is_added_and_what_is_taken_is_as_asked_for(
    existing: Existing, taken: Route, lines: list[str]
) -> None:
    done = additions(THERE, {}, Wanted(WANTED), existing)
    assert done.plan.result(THERE) == {"/same": A, "/taken": taken, "/other": B, "/new": C}
    assert done.lines() == lines
    again = additions(done.plan.result(THERE), {}, Wanted(WANTED), existing)
    assert not again.plan
    assert len(again.kept) == (1 if existing is Existing.KEEP else 0)


def test_a_route_of_an_upstream_is_another_one_and_stays_usable_when_it_is_replaced() -> None:
    there = {
        "/same": Route(upstream="api", base="/v1"),
        "/base": Route(upstream="api", balancer=Balancer.WEIGHT, via="relay"),
        "/to": Route(target="https://a.example", via="relay", max_connections=5, tls=UpstreamTls(verify=False)),
        "/from": Route(upstream="api", base="/v1", balancer=Balancer.WEIGHT, via="relay"),
    }
    wanted = {
        "/same": Route(upstream="api", base="/v1"),
        "/base": Route(upstream="api", base="/v2"),
        "/to": Route(upstream="api", balancer=Balancer.IP_HASH),
        "/from": Route(target="https://b.example"),
    }
    kept = additions(there, {}, Wanted(wanted), Existing.KEEP)
    assert kept.lines() == [
        "= /base upstream api (kept; not upstream api/v2)",
        "= /from upstream api/v1 (kept; not https://b.example)",
        "= /to https://a.example (kept; not upstream api)",
    ]
    after = additions(there, {}, Wanted(wanted), Existing.REPLACE).plan.result(there)
    assert (
        checked(after)
        == after
        == {
            "/same": there["/same"],
            "/base": Route(upstream="api", base="/v2", balancer=Balancer.WEIGHT, via="relay"),
            "/to": Route(upstream="api", balancer=Balancer.IP_HASH, via="relay"),
            "/from": Route(target="https://b.example", via="relay"),
        }
    )


def test_balancers_that_are_given_are_wanted_too() -> None:
    there = {"/": Route(upstream="api", balancer=Balancer.WEIGHT, via="relay"), "/x": Route(upstream="api")}
    by_address = Protocols(sse=Balancer.IP_HASH)
    wanted = {"/": Route(upstream="api", balancer=Balancer.IP_HASH, protocols=by_address), "/x": Route(upstream="api")}
    kept = additions(there, {}, Wanted(wanted), Existing.KEEP)
    assert (kept.plan.result(there), kept.lines()) == (
        there,
        ["= / upstream api (kept; it differs in balancer, protocols)"],
    )
    replaced = additions(there, {}, Wanted(wanted), Existing.REPLACE)
    assert replaced.lines() == ["~ / upstream api (balancer, protocols)"]
    assert replaced.plan.result(there)["/"] == Route(
        upstream="api", balancer=Balancer.IP_HASH, protocols=by_address, via="relay"
    )


OLD = Upstream(
    backends=(
        Backend(
            url="https://a", id="a", draining=True, priority=1, health_check=HealthCheck(successes=2, statuses=(200,))
        ),
        Backend(url="https://b", id="b"),
    ),
    retry_max=5,
    tls=UpstreamTls(server_name="x"),
)
NEW = Upstream(
    backends=(
        Backend(url="https://a", id="a", weight=50, health_check=HealthCheck(path="/up", failures=1)),
        Backend(url="https://c", id="c"),
    )
)


def test_an_upstream_that_is_not_there_is_added_with_the_route_that_uses_it() -> None:
    done = additions({}, {}, Wanted({"/": Route(upstream="new")}, {"new": NEW}, ("new",)), Existing.KEEP)
    assert result({}, done.plan.upstreams) == {"new": NEW}
    assert done.lines() == [
        "+ upstream new",
        "+ upstream new backend a https://a",
        '+ upstream new backend a health_check {"path":"/up","failures":1}',
        "+ upstream new backend a weight 50",
        "+ upstream new backend c https://c",
        "+ / upstream new",
    ]
    again = additions({}, {"new": NEW}, Wanted({}, {"new": NEW}), Existing.KEEP)
    assert (again.lines(), bool(again.plan)) == ([], False)


def test_an_upstream_that_is_taken_is_kept_and_said() -> None:
    done = additions({}, {"up": OLD}, Wanted({}, {"up": NEW}), Existing.KEEP)
    assert not done.plan
    parts = "backend a health_check, backend a weight, backend b, backend c"
    assert done.lines() == [f"= upstream up (kept; it differs in {parts})"]


def test_an_upstream_that_is_replaced_has_the_other_backends_and_else_what_it_had() -> None:
    done = additions({}, {"up": OLD, "zz": NEW}, Wanted({}, {"up": NEW}), Existing.REPLACE)
    after = result({"up": OLD, "zz": NEW}, done.plan.upstreams)
    check = HealthCheck(path="/up", failures=1, successes=2, statuses=(200,))
    backend = Backend(url="https://a", id="a", weight=50, draining=True, priority=1, health_check=check)
    assert after["zz"] == NEW
    assert after["up"] == Upstream(
        backends=(backend, Backend(url="https://c", id="c")), retry_max=5, tls=UpstreamTls(server_name="x")
    )
    assert [line.split(" ")[:5] for line in done.lines() if "health_check" not in line] == [
        ["+", "upstream", "up", "backend", "a"],
        ["-", "upstream", "up", "backend", "b"],
        ["+", "upstream", "up", "backend", "c"],
    ]
    assert not additions({}, after, Wanted({}, {"up": NEW}), Existing.REPLACE).plan


def test_tls_of_backends_goes_with_the_last_https_backend() -> None:
    wanted = Wanted({}, {"up": Upstream(backends=(Backend(url="http://a", id="a"),))})
    after = result({"up": OLD}, additions({}, {"up": OLD}, wanted, Existing.REPLACE).plan.upstreams)
    assert upstream_specs.checked(after) == after
    assert after["up"].tls == UpstreamTls()


def test_an_upstream_that_lacks_a_backend_replaces_none() -> None:
    done = additions({}, {"up": OLD}, Wanted({}, {"up": NEW}, {"up"}), Existing.REPLACE)
    assert not done.plan
    assert [one.name for one in done.kept_upstreams] == ["up"]
