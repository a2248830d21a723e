"""A batch: what a worker says of access tokens, and asks, in one call to Redis. How it is spelled, and its answer.

All are arrays in msgpack. `metering.py` decides a batch in Python, `shared_state/meter.lua` in Redis.
"""

from enum import IntEnum

import msgspec

from proxy.rules.access_tokens import AccessToken, Action

NOT_DECIDED = ("open", "not_ready")
"""Reasons of a StoreUnavailable after which it is certain that the batch was not decided: Redis was not asked, or does
not have all tokens yet."""


class Verdict(IntEnum):
    """Whether a request is admitted; or else the first reason why not, in the order in which they are looked for.

    STALE: the worker knows another revision of the token than Redis; what it gets with the answer is to be looked at
    before the request is asked about again.
    """

    ADMITTED = 0
    UNKNOWN = 1
    STALE = 2
    DISABLED = 3
    DELETED = 4
    EXPIRED = 5
    PER_MINUTE = 6
    PER_SECOND = 7
    CONCURRENT = 8
    QUOTA = 9


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request as its worker asks about it, at a cost. `token` is what the worker knows; None: nothing, or too little.

    Of one that was served without asking the cost is what it has used.
    """

    digest: str
    token: AccessToken | None
    cost: int
    request_id: str

    @property
    def token_id(self) -> str:
        return "" if self.token is None else self.token.id

    @property
    def refunds(self) -> bool:
        """Whether what could not be sent is given back."""
        return self.token is None or self.token.refunds


NOTHING_ASKED = Asked("", None, 0, "")


class Admission(msgspec.Struct, gc=False):
    """What became of a request, and what is left after it.

    `remaining` and `total` are None where nothing is counted. `per_minute` and what is `left` of it are 0 where it is
    without that bound; in `reset_ms` all of it will be left again. `retry_ms` is told where a rate is exceeded: not
    before then can another request be admitted. `concurrent` and `running` (with this request) are told where that is
    bounded. `asked` is what it is the answer to: the worker's own, Redis does not send it.
    """

    verdict: int
    remaining: int | None = None
    total: int | None = None
    per_minute: int = 0
    left: int = 0
    reset_ms: int = 0
    retry_ms: int = 0
    concurrent: int = 0
    running: int = 0
    asked: Asked = NOTHING_ASKED


class Part(msgspec.Struct, array_like=True, gc=False):
    """A token of a batch: how many requests with it run at the worker just now.

    Those that the batch settles run no more, those that it asks about not yet. `capped`: Redis has said that a bound is
    on them, so it is told of their number also where it is asked nothing.
    """

    running: int
    capped: bool


class Request(msgspec.Struct, array_like=True, gc=False):
    """A request that wants to be admitted. `place` is that of its token, `revision` the one that the worker knows."""

    place: int
    revision: int
    cost: int
    request_id: str


class Settlement(msgspec.Struct, array_like=True, gc=False):
    """A request that changes its counter as it ends: it has used more or less than was taken.

    With the action CONSUME it is one that was admitted without Redis.
    """

    place: int
    change: int
    action: Action
    request_id: str


class Withdrawal(msgspec.Struct, array_like=True, gc=False):
    """A request of a lost batch, in the order of its `requests`: what it has taken, if anything, is given back."""

    place: int
    cost: int
    request_id: str


class Batch(msgspec.Struct, array_like=True, gc=False):
    """A batch. `number` counts those of the worker; one that is smaller than another that was decided never will be.

    `again`: no answer came to the batch of this number. Where it was decided, only the withdrawals are; where not, only
    the settlements, which are the same. `now_ms` is since 1970; 0: Redis's clock. Settlements come before requests.
    """

    worker: str
    number: int
    again: bool
    now_ms: int
    parts: list[Part]
    settlements: list[Settlement] = []
    requests: list[Request] = []
    withdrawals: list[Withdrawal] = []


class Answer(msgspec.Struct):
    """The admissions of a batch's requests, and for each that is STALE, in their order, the token's record."""

    admissions: list[Admission]
    records: list[AccessToken]
