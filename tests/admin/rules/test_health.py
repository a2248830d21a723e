"""Which backends are checked and how, what answers say, and when a backend's state changes."""

import pytest

from admin.rules.health import JITTER, Checked, Standing, after, call, checked, first_pause_s, pause_s, problem
from proxy.config import Backend, HealthCheck, Upstream, UpstreamTls

CHECK = HealthCheck()
OWN = HealthCheck(path="/own?deep=1", statuses=(204,))
TLS = UpstreamTls(ca="/ca.pem", server_name="a.example")


def test_a_backend_is_checked_as_it_says_or_else_as_its_upstream_says() -> None:
    upstreams = {
        "one": Upstream(
            backends=(
                Backend(url="http://a.example:1", id="a"),
                Backend(url="https://b.example", id="b", health_check=OWN),
                Backend(url="http://c.example", id="c", draining=True),
                Backend(url="http://d.example", id="d", active=False, health_check=OWN),
            ),
            health_check=CHECK,
            tls=TLS,
        ),
        "two": Upstream(
            backends=(
                Backend(url="http://a.example:1", id="a"),
                Backend(url="http://b.example", id="b", health_check=OWN),
            )
        ),
        "none": Upstream(),
    }
    assert checked(upstreams) == {
        ("one", "a"): Checked("http://a.example:1", None, CHECK),
        ("one", "b"): Checked("https://b.example", TLS, OWN),
        ("one", "c"): Checked("http://c.example", None, CHECK),
        ("two", "b"): Checked("http://b.example", None, OWN),
    }


def test_it_is_asked_for_its_path() -> None:
    made = call(Checked("https://b.example:8443", TLS, OWN))
    assert (made.method, made.url, made.target) == (
        "GET",
        "https://b.example:8443/own?deep=1",
        "https://b.example:8443",
    )
    assert made.tls is TLS
    assert made.fields["user-agent"] == "relaygate-health-check"


@pytest.mark.parametrize(
    ("check", "status", "body", "word", "said"),
    [
        (CHECK, 200, b"", None, ""),
        (CHECK, 399, b"", None, ""),
        (CHECK, 199, b"", None, "status 199"),
        (CHECK, 400, b"", None, "status 400"),
        (CHECK, 503, b"", None, "status 503"),
        (OWN, 204, b"", None, ""),
        (OWN, 200, b"", None, "status 200"),
        (HealthCheck(body="ok"), 200, b'{"ok": true}', None, ""),
        (HealthCheck(body="gr\u00fcn"), 200, "alles gr\u00fcn".encode(), None, ""),
        (HealthCheck(body="ok"), 200, b"OK", None, "status 200, without the text that is expected in its body"),
        (HealthCheck(body="ok"), 503, b"ok", None, "status 503"),
        (CHECK, 0, b"", "timeout", "timed out"),
        (CHECK, 0, b"", "connect_refused", "connection refused"),
        (CHECK, 0, b"", "something_new", "something_new"),
    ],
)
def test_what_is_wrong_with_an_answer(
    check: HealthCheck, status: int, body: bytes, word: str | None, said: str
) -> None:
    assert problem(check, status, body, word) == said


@pytest.mark.parametrize(
    ("failures", "successes", "checks", "states"),
    [
        (1, 1, "xox", "-+-"),
        (3, 1, "xxoxxx", "+++++-"),
        (3, 1, "xxxxo", "++--+"),
        (2, 3, "xxooxooo", "+------+"),
        (2, 2, "xxoxox", "+-----"),
    ],
)
def test_only_checks_in_a_row_change_a_state(failures: int, successes: int, checks: str, states: str) -> None:
    """`x` is a check with a problem, `o` a good one; `-` is unhealthy after it, `+` healthy."""
    check = HealthCheck(failures=failures, successes=successes)
    standing, found = Standing(), ""
    for one in checks:
        standing = after(standing, check, "status 503" if one == "x" else "")
        found += "+" if standing.healthy else "-"
    assert found == states


def test_checks_are_spread() -> None:
    assert (first_pause_s(0.0), first_pause_s(1.0)) == (0.0, 1.0)
    assert (pause_s(30.0, 0.0), pause_s(30.0, 0.5), pause_s(30.0, 1.0)) == pytest.approx((27.0, 30.0, 33.0))
    assert JITTER == 0.1
