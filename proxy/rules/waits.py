"""How long an upstream asks to be left alone, in seconds, from an answer's fields and what its body says.

A wait is more than 0 and at most `WAIT_S_MAX`; whatever is not (0, negative, a date gone by, a year ahead, no number at
all) is no wait, None, and the ban machine takes its own times. Names of fields are in lower case. Nothing here raises.

Sources: RFC 9110 section 10.2.3 (`Retry-After`); OpenAI, guide "Rate limits" (`x-ratelimit-reset-requests: 1s`,
`x-ratelimit-reset-tokens: 6m0s`) and its client libraries, which heed `retry-after-ms` first; Anthropic, "Rate limits"
(`anthropic-ratelimit-*-reset` in RFC 3339); google.rpc.RetryInfo (`retryDelay: "34.07s"`).
"""

import re
from collections.abc import Iterable

from proxy.rules.dates import date_s
from proxy.rules.headers import Header

DAY_S = 86_400
# The longest that a provider means: until the next month, when a limit of money is filled again.
WAIT_S_MAX = 31.0 * DAY_S
NUMBER = re.compile(rb"\d+(?:\.\d+)?")
# What OpenAI, Groq and protobuf write, as Go does: 1s, 6m0s, 20ms, 1h2m, 2m59.56s.
DURATION = re.compile(rb"(?:\d{1,9}(?:\.\d{1,12})?(?:ms|us|ns|[dhms]))+")
PART = re.compile(rb"(\d+(?:\.\d+)?)(ms|us|ns|[dhms])")
UNITS = {b"ns": 1e-9, b"us": 1e-6, b"ms": 1e-3, b"s": 1.0, b"m": 60.0, b"h": 3600.0, b"d": 86_400.0}

RESETS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-ratelimit-reset-requests", b"x-ratelimit-remaining-requests"),
    (b"x-ratelimit-reset-tokens", b"x-ratelimit-remaining-tokens"),
    (b"anthropic-ratelimit-requests-reset", b"anthropic-ratelimit-requests-remaining"),
    (b"anthropic-ratelimit-tokens-reset", b"anthropic-ratelimit-tokens-remaining"),
    (b"anthropic-ratelimit-input-tokens-reset", b"anthropic-ratelimit-input-tokens-remaining"),
    (b"anthropic-ratelimit-output-tokens-reset", b"anthropic-ratelimit-output-tokens-remaining"),
    (b"anthropic-ratelimit-unified-reset", b"anthropic-ratelimit-unified-status"),
    (b"x-ratelimit-reset", b"x-ratelimit-remaining"),
    (b"ratelimit-reset", b"ratelimit-remaining"),
)
"""When a limit is filled again, and the field that says whether it is this one that is used up."""


def wait_s(fields: Iterable[Header], now_s: float, body_s: float | None = None) -> float | None:
    """Returns the wait that an answer asks for: `retry-after-ms`, `Retry-After`, its body's, the longest of its resets.

    `now_s` is the time here, for where the answer has no `Date`: a time that an upstream names is by its own clock.
    """
    named = dict(reversed(list(fields)))  # of several, the first
    server_s = date_s(named.get(b"date", b"")) or now_s
    milliseconds = number(named.get(b"retry-after-ms", b""))
    for asked_s in (
        None if milliseconds is None else milliseconds / 1000,
        until_s(named.get(b"retry-after", b""), server_s),
        body_s,
    ):
        if bounded_s(asked_s) is not None:
            return bounded_s(asked_s)
    return bounded_s(max(resets_s(named, server_s), default=None))


def resets_s(named: dict[bytes, bytes], server_s: float) -> list[float]:
    """Returns in how many seconds those limits are filled again that are used up, or may be."""
    waits = [until_s(named[reset], server_s) for reset, left in RESETS if reset in named and used_up(named.get(left))]
    return [wait for wait in waits if bounded_s(wait) is not None and wait is not None]


def used_up(left: bytes | None) -> bool:
    """Tells whether what is left of a limit is nothing, or is not said."""
    return left is None or left == b"rejected" or number(left) == 0


def until_s(text: bytes, server_s: float) -> float | None:
    """Returns how far ahead a time lies, however it is written.

    A number is seconds, or seconds or milliseconds since 1970 if it is so large that it can only be that.
    """
    text = text.strip(b" \t")
    value = number(text)
    if value is not None:
        return value if value < 1e9 else value - server_s if value < 1e11 else value / 1000 - server_s
    if DURATION.fullmatch(text[:64]):
        return duration_s(text)
    at_s = date_s(text)
    return None if at_s is None else at_s - server_s


def duration_s(text: bytes) -> float | None:
    """Returns the seconds of `1h2m3.5s`; None where it is no duration."""
    if not DURATION.fullmatch(text[:64]):
        return None
    return sum(float(value) * UNITS[unit] for value, unit in PART.findall(text[:64]))


def number(text: bytes) -> float | None:
    """Returns a plain number of bounded length, without sign or exponent."""
    text = text.strip(b" \t")
    return float(text) if len(text) <= 32 and NUMBER.fullmatch(text) else None


def bounded_s(wait: float | None) -> float | None:
    """Returns a wait if it can be meant: more than 0 and at most `WAIT_S_MAX`."""
    return wait if wait is not None and 0 < wait <= WAIT_S_MAX else None
