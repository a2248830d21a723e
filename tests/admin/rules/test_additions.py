"""What adding routes does to those that are there."""

import pytest

from admin.rules.additions import Existing, additions
from admin.rules.route_specs import checked
from proxy.config import Balancer, Route, UpstreamTls

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
    done = additions(THERE, WANTED, existing)
    assert done.plan.result(THERE) == {"/same": A, "/taken": taken, "/other": B, "/new": C}
    assert done.lines() == lines
    again = additions(done.plan.result(THERE), WANTED, existing)
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
    kept = additions(there, wanted, Existing.KEEP)
    assert kept.lines() == [
        "= /base upstream api (kept; not upstream api/v2)",
        "= /from upstream api/v1 (kept; not https://b.example)",
        "= /to https://a.example (kept; not upstream api)",
    ]
    after = additions(there, wanted, Existing.REPLACE).plan.result(there)
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
