"""An API of which nothing is known."""

import pytest

from proxy.dialects.generic import affinity, judge, model
from proxy.rules.credentials import Says, Verdict


@pytest.mark.parametrize(
    ("status", "says"),
    [
        *((status, Says.SUCCESS) for status in (101, 200, 204, 206, 301, 304)),
        *((status, Says.NOTHING) for status in (400, 404, 405, 406, 407, 408, 409, 410, 413, 415, 422, 451, 499)),
        (401, Says.UNAUTHORIZED),
        (402, Says.OUT_OF_QUOTA),
        (403, Says.FORBIDDEN),
        (429, Says.RATE_LIMITED),
        (501, Says.NOTHING),
        (505, Says.NOTHING),
        (503, Says.OVERLOADED),
        (529, Says.OVERLOADED),
        *((status, Says.FAILED) for status in (500, 502, 504, 507, 520, 524, 599)),
    ],
)
def test_the_status_decides(status: int, says: Says) -> None:
    assert judge(status, [], b'{"error":{"code":"invalid_api_key"}}', 0) == Verdict(says)


@pytest.mark.parametrize(("status", "wait"), [(429, 7.0), (402, 7.0), (503, 7.0), (500, 7.0), (401, None), (404, None)])
def test_a_wait_is_read_where_waiting_can_help(status: int, wait: float | None) -> None:
    assert judge(status, [(b"retry-after", b"7")], b"", 0).wait_s == wait


def test_a_request_is_read_as_many_apis_have_it() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a"}]}'
    assert model(b"/", body) == "m"
    assert affinity(b"/", body) is not None
