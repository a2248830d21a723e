"""What adding routes does to those that are there."""

import pytest

from admin.rules.additions import Existing, additions
from proxy.config import Route

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
