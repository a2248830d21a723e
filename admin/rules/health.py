"""Health checks of backends: whom to ask and for what, what an answer says, and when a backend counts as healthy. Pure.

A backend is healthy until checks in a row say otherwise, and unhealthy until checks in a row say otherwise.
"""

from collections.abc import Mapping
from typing import NamedTuple

from admin.rules.key_calls import Call
from proxy.config import HealthCheck, Upstream, UpstreamTls
from proxy.shared_state.linked_groups import Name

FIRST_S = 1.0
"""Within which the first check of a backend is made, so that those of many are not made at once."""
JITTER = 0.1
"""By how much of the interval a check may come early or late."""

FIELDS = {"accept": "*/*", "user-agent": "relaygate-health-check"}

WORDS = {
    "timeout": "timed out",
    "connect_refused": "connection refused",
    "connect_failed": "no connection",
    "dns_failed": "its name could not be resolved",
    "certificate_invalid": "its certificate is not valid",
    "tls_failed": "no TLS connection",
    "target_refused": "its address is not public",
    "no_answer": "the connection ended without a whole answer",
}
"""Why there was no answer (`admin/upstream_calls.py`), in words."""


class Checked(NamedTuple):
    """A backend that is to be checked: how it is reached, and what is asked. `tls` None: it speaks clear text."""

    url: str
    tls: UpstreamTls | None
    check: HealthCheck


class Standing(NamedTuple):
    """Whether a backend counts as healthy, and how many checks in a row have spoken against that."""

    healthy: bool = True
    against: int = 0


def checked(upstreams: Mapping[str, Upstream]) -> dict[Name, Checked]:
    """Returns the backends that are to be checked: those in use that have a check, or whose upstream has one."""
    found = {}
    for name, upstream in upstreams.items():
        for backend in upstream.backends:
            check = backend.health_check or upstream.health_check
            if check is not None and backend.active:
                tls = upstream.tls if backend.url.startswith("https:") else None
                found[name, backend.id] = Checked(backend.url, tls, check)
    return found


def call(one: Checked) -> Call:
    return Call(url=one.url + one.check.path, fields=FIELDS, target=one.url, tls=one.tls)


def problem(check: HealthCheck, status: int, body: bytes, word: str | None) -> str:
    """Returns in words what is wrong with an answer; nothing if it is good. `word` says why there was none."""
    if word is not None:
        return WORDS.get(word, word)
    good = status in check.statuses if check.statuses else 200 <= status < 400
    if not good:
        return f"status {status}"
    if check.body is not None and check.body.encode() not in body:
        return f"status {status}, without the text that is expected in its body"
    return ""


def after(standing: Standing, check: HealthCheck, problem: str) -> Standing:
    """Returns how a backend stands after one more check."""
    if standing.healthy is not bool(problem):
        return Standing(standing.healthy)
    against = standing.against + 1
    enough = check.failures if standing.healthy else check.successes
    return Standing(not standing.healthy) if against >= enough else Standing(standing.healthy, against)


def first_pause_s(chance: float) -> float:
    """How long to wait for the first check; `chance` is a random number from 0 to 1."""
    return FIRST_S * chance


def pause_s(interval_s: float, chance: float) -> float:
    """The time from one check to the next; `chance` is a random number from 0 to 1."""
    return interval_s * (1 - JITTER + 2 * JITTER * chance)
