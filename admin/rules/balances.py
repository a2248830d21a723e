"""Balances: how a provider is asked how much of its allowance a key has used, and what its answer says. Pure.

A query is data (`config.BalanceQuery`): a request with `{key}` in it and JSON pointers into the answer. A preset is a
row of them, the one to try first in front: a provider that has moved its API answers the later ones.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from admin.rules.key_calls import Call
from proxy.config import BalanceMethod, BalancePreset, BalanceQuery, UpstreamTls
from proxy.rules.dates import rfc3339_s
from proxy.sources.values import KEY

NUMBER_MAX = 10**13
"""Sums of 900,000 keys fit into SQL's integers. What is more means no limit, and is not known."""
MS_FROM = 10**11
"""A number of a time from here on is in milliseconds: as seconds it would be the year 5138."""
MOVED = frozenset((404, 405, 410))
"""Statuses by which a provider says that it has no such endpoint."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MISSING = object()

_FACTORY = BalanceQuery(
    providers=("factory",),
    url="https://api.factory.ai/api/organization/subscription/usage",
    method=BalanceMethod.POST,
    headers={"authorization": "Bearer {key}", "accept": "application/json"},
    body={"useCache": True},
    used="/usage/standard/orgTotalTokensUsed",
    total="/usage/standard/totalAllowance",
    period_begin="/usage/startDate",
    period_end="/usage/endDate",
)
PRESETS: Mapping[BalancePreset, Sequence[BalanceQuery]] = {
    BalancePreset.FACTORY: (
        _FACTORY,
        msgspec.structs.replace(
            _FACTORY,
            url="https://app.factory.ai/api/organization/members/chat-usage",
            method=BalanceMethod.GET,
            body=None,
        ),
    )
}


class Reading(NamedTuple):
    """What a provider says of a key. Tokens, or whatever it counts in; None: it does not say. Times in ms since 1970.

    `used` and `total` belong to a period. Where only what remains is told, that is `total`, and `used` is None.
    """

    used: int | None
    total: int | None
    begins_at: int | None = None
    ends_at: int | None = None

    @property
    def remaining(self) -> int | None:
        return remaining(self.used, self.total)


class Told(NamedTuple):
    """What came of asking about a key: a reading, or in a word why there is none. `at` in milliseconds since 1970."""

    id: str
    at: int
    reading: Reading | None
    problem: str | None = None


class Day(NamedTuple):
    """A day that began at `start_s` (Unix time): the last figures of it, and what was used between readings."""

    start_s: int
    used: int | None
    total: int | None
    spent: int


class Totals(NamedTuple):
    """Of all keys: how many there are, of how many the figures are known, how many could not be asked about the last
    time; sums of what is known; when the oldest and the newest figures were read, in milliseconds since 1970.
    """

    keys: int
    known: int
    failing: int
    used: int
    total: int
    remaining: int
    oldest_at: int | None
    newest_at: int | None


def remaining(used: int | None, total: int | None) -> int | None:
    """What is left, less than nothing where more was used than allowed; None where that is not known."""
    return None if total is None else total - (used or 0)


def queries_for(
    queries: Mapping[str, BalanceQuery],
    provider: str,
    group: str,
    presets: Mapping[BalancePreset, Sequence[BalanceQuery]] = PRESETS,
) -> Sequence[BalanceQuery]:
    """Returns what to ask about a key, each where the one before leads nowhere: of the first query, by name, for it."""
    for _, query in sorted(queries.items()):
        asked = (query,) if query.preset is None else presets[query.preset]
        providers = query.providers or asked[0].providers
        if (not providers or provider in providers) and (not query.pool_groups or group in query.pool_groups):
            return asked
    return ()


def call(query: BalanceQuery, secret: str) -> Call:
    """Returns the request that asks with a key."""
    url = (query.url or "").replace(KEY, quote(secret, safe=""))
    fields = {name: value.replace(KEY, secret) for name, value in query.headers.items()}
    body = None
    if query.body is not None:
        body = msgspec.json.encode(_filled(query.body, secret))
        fields.setdefault("content-type", "application/json")
    # Without path and query, where the key may be.
    target = "/".join((query.url or "").partition("?")[0].split("/")[:3])
    tls = UpstreamTls() if url.startswith("https:") else None
    return Call(url=url, fields=fields, target=target, tls=tls, method=query.method.value, body=body)


def read(query: BalanceQuery, answer: bytes) -> Reading | None:
    """Returns what an answer says, None where it says nothing of use."""
    try:
        document = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

    def told(pointer: str | None, meant: Callable[[Any], int | None]) -> int | None:
        return None if pointer is None else meant(pointed_at(document, pointer))

    def number(value: Any) -> int | None:
        return _number(value, query.scale)

    used, total, left = told(query.used, number), told(query.total, number), told(query.remaining, number)
    if used is None and left is None:
        return None
    if used is None and total is not None and left is not None:
        used = max(total - left, 0)
    elif total is None and left is not None:
        total = (used or 0) + left
    return Reading(used, total, told(query.period_begin, _time_ms), told(query.period_end, _time_ms))


def spent(before: Reading, after: Reading) -> int:
    """Returns what was used between two readings of a key, 0 where that is not known.

    What is told of a new period was used since it began. Without a period, less than before means a new one; within
    one, it is a correction.
    """
    if after.used is None:
        if before.used is not None or before.total is None or after.total is None:
            return 0
        return max(before.total - after.total, 0)
    if before.used is None:
        return 0
    if after.begins_at is None or before.begins_at is None:
        renewed = after.used < before.used
    else:
        renewed = after.begins_at != before.begins_at
    return max(after.used if renewed else after.used - before.used, 0)


def pointed_at(document: Any, pointer: str) -> Any:
    """Returns what a JSON pointer (RFC 6901) leads to, None where it leads nowhere."""
    found = document
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name, _MISSING)
        elif isinstance(found, list) and (name == "0" or re.fullmatch(r"[1-9][0-9]{0,8}", name)):
            found = found[int(name)] if int(name) < len(found) else _MISSING
        else:
            return None
    return None if found is _MISSING else found


def _filled(value: Any, secret: str) -> Any:
    """A part of a JSON body with the key in its texts."""
    if isinstance(value, str):
        return value.replace(KEY, secret)
    if isinstance(value, dict):
        return {name: _filled(item, secret) for name, item in value.items()}
    return [_filled(item, secret) for item in value] if isinstance(value, list) else value


def _number(value: Any, scale: float) -> int | None:
    """A number, also one that is written as text, as money often is."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int) and (scale == 1.0 or abs(value) > sys.float_info.max):
        scaled = value
    elif math.isfinite(value * scale):
        scaled = round(value * scale)
    else:
        return None
    return scaled if abs(scaled) <= NUMBER_MAX else None


def _time_ms(value: Any) -> int | None:
    """Of 0, as of null, nothing is known."""
    if isinstance(value, str):
        text = f"{value}T00:00:00Z" if _DATE.fullmatch(value) else value
        at_s = rfc3339_s(text.encode(errors="replace"))
        return None if at_s is None else round(at_s * 1000)
    number = _number(value, 1.0)
    if number is None or number <= 0:
        return None
    return number if number >= MS_FROM else number * 1000
