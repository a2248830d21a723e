"""How the fake provider treats each key: what a test has planned for it, and which part of the plan holds now.

Pure: times are arguments, in seconds of one clock. A plan is a list of behaviours; the first that is not over holds,
and when all are, the key is good. Behaviours with a time begin with the first request that meets them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from loadtests.fake_requests import Ending


class Does(StrEnum):
    """What becomes of a request. How an error is spelled depends on the API (`fake_provider_errors.py`)."""

    OK = "ok"
    PAYMENT_REQUIRED = "payment_required"  # 402
    UNAUTHORIZED = "unauthorized"  # 401: the key is wrong or revoked
    EXPIRED = "expired"  # 401, which does not say that the key will never be good again
    FORBIDDEN = "forbidden"  # 403
    RATE_LIMITED = "rate_limited"  # 429, with a time to wait told as `Tells` says
    OUT_OF_QUOTA = "out_of_quota"  # 429, and waiting does not help
    NO_MODEL = "no_model"  # 404: there is no such model for this key
    FAILED = "failed"  # 500
    OVERLOADED = "overloaded"  # 503, or 529 where Anthropic says it so
    SILENT = "silent"  # never answers
    CUT_BEFORE = "cut_before"  # reads the request, does not process it, and closes without a byte
    CUT_AFTER_WORK = "cut_after_work"  # the same, but has processed it
    CUT_AFTER = "cut_after"  # processes it, and closes in the middle of the answer


PROCESSED = frozenset((Does.OK, Does.CUT_AFTER_WORK, Does.CUT_AFTER))
"""What has an effect at the provider, such as a charge: it must not happen twice for one request of a client."""


class Tells(StrEnum):
    """How a 429 says how long to wait."""

    RETRY_AFTER = "retry_after"  # whole seconds, rounded up
    RETRY_AFTER_DATE = "retry_after_date"  # an HTTP date
    RETRY_AFTER_MS = "retry_after_ms"
    RESET = "reset"  # OpenAI's x-ratelimit-reset-*, Anthropic's anthropic-ratelimit-*-reset
    RETRY_INFO = "retry_info"  # Gemini's, in the body
    NOTHING = "nothing"


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a key's plan: for `for_s` from its first request on, for `times` requests, or for ever.

    It holds for one model only, where `model` is given. `delay_s` passes before the answer. A stream has `words` words,
    `interval_s` apart; a cut one breaks off by `ending` after `events` events, an answer that is no stream in its
    middle.
    """

    does: Does = Does.OK
    for_s: float | None = None
    times: int | None = None
    model: str | None = None
    delay_s: float = 0.0
    tells: Tells = Tells.RETRY_AFTER
    words: int = 8
    interval_s: float = 0.0
    events: int = 3
    ending: Ending = Ending.FIN


GOOD = Behaviour()
"""What a key does when nothing of its plan is left."""


class Met(msgspec.Struct, frozen=True):
    """What a request meets, and how long that will last (None: nobody knows)."""

    behaviour: Behaviour
    left_s: float | None = None


@dataclass
class _Part:
    behaviour: Behaviour
    until_s: float | None = None
    met: int = 0

    def is_over(self, now_s: float) -> bool:
        behaviour = self.behaviour
        return (self.until_s is not None and now_s >= self.until_s) or self.met == behaviour.times


@dataclass
class Keys:
    """All keys that the provider has given out, and their plans."""

    _plans: dict[str, list[_Part]] = field(default_factory=dict)

    def plan(self, key: str, behaviours: Iterable[Behaviour]) -> None:
        """Give a key out, or replace its plan. Of an empty plan: it is good."""
        self._plans[key] = [_Part(behaviour) for behaviour in behaviours]

    def forget(self, key: str) -> None:
        self._plans.pop(key, None)

    def clear(self) -> None:
        self._plans.clear()

    def is_given(self, key: str) -> bool:
        return key in self._plans

    def meet(self, key: str, model: str, now_s: float) -> Met | None:
        """Returns what a request meets, None for a key that nobody has been given. Takes note that it was met."""
        plan = self._plans.get(key)
        if plan is None:
            return None
        for part in plan:
            if not part.is_over(now_s) and part.behaviour.model in (None, model):
                return _meet(part, now_s)
        return Met(GOOD)


def _meet(part: _Part, now_s: float) -> Met:
    part.met += 1
    if part.until_s is None and part.behaviour.for_s is not None:
        part.until_s = now_s + part.behaviour.for_s
    return Met(part.behaviour, None if part.until_s is None else part.until_s - now_s)
