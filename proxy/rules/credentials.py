"""What a credential is, what an answer says of it, and what keeps it from being used. `bans.py` decides."""

from enum import StrEnum
from typing import NamedTuple

import msgspec

DEFAULT_GROUP = "default"
OAUTH_ID = "oauth"
"""The id of the credential that the control plane refreshes."""
ALL_MODELS = ""
"""Stands in the place of a model for what holds of a credential whatever it is used for."""


class Kind(StrEnum):
    """KEY is one that somebody has been given; OAUTH an access token that the control plane refreshes."""

    KEY = "key"
    OAUTH = "oauth"


class Credential(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A credential as workers get it. It may be chosen unless `enabled` is false.

    `secret` is encrypted for the purpose `credential:ID` (`secrets.py`). The figures are those of the database when it
    was published: what selection begins with. Of tokens, None is not known.
    """

    id: str
    secret: str
    group: str = DEFAULT_GROUP
    kind: Kind = Kind.KEY
    enabled: bool = True
    requests: int = 0
    successes: int = 0
    last_used_s: float = 0.0
    tokens_used: int | None = None
    tokens_total: int | None = None


class BanCause(StrEnum):
    """Why a credential is put aside.

    Hard: it is not used before its end. Soft: where nothing else is left, the one that ends first is used all the same.
    So are OVERLOADED and FAILING, since the fault is rather the upstream's, and NOT_ENTITLED, since a model that does
    not exist looks the same: the client is to hear that from the upstream, and no request is refused for a wrong name.
    """

    COUNTING = "counting"  # no ban yet: failures in a row below the threshold
    RATE_LIMITED = "rate_limited"
    OUT_OF_QUOTA = "out_of_quota"
    DEAD = "dead"
    NOT_ENTITLED = "not_entitled"
    OVERLOADED = "overloaded"
    FAILING = "failing"


SOFT = frozenset((BanCause.OVERLOADED, BanCause.FAILING, BanCause.NOT_ENTITLED))


class Ban(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state of a credential, for one model or all, that is not simply usable. Times in seconds since 1970.

    `until_s` is when it ends: then one request, and one only, may try (the **probe**), which must have begun before
    `probe_until_s` is set by another. `failures` have come in a row, the last at `last_failure_s`; `strikes` bans did.
    `status` is the answer's that led to it, 0 where there was none.
    """

    cause: BanCause
    since_s: float
    until_s: float
    failures: int = 0
    last_failure_s: float = 0.0
    strikes: int = 0
    probe_until_s: float = 0.0
    status: int = 0


class Says(StrEnum):
    """What an answer, or its absence, says of the credential that it was asked with."""

    SUCCESS = "success"
    NOTHING = "nothing"  # the client's fault, or nobody's: changes no state, counts for nothing
    RATE_LIMITED = "rate_limited"
    OUT_OF_QUOTA = "out_of_quota"  # 402, or a word of the provider that means the same
    UNAUTHORIZED = "unauthorized"  # 401: counted, or dead at once (`ban_401`)
    DEAD = "dead"  # the provider says that the key is invalid, revoked or suspended
    FORBIDDEN = "forbidden"  # 403 without a reason: another is tried, and nothing counts, as any client can ask for it
    NOT_ENTITLED = "not_entitled"  # this credential may not use this model
    OVERLOADED = "overloaded"  # 503, 529: the upstream as a whole
    FAILED = "failed"  # another 5xx, no connection, no answer in time, cut short before its first byte: counted


class Verdict(NamedTuple):
    """`wait_s` is how long the upstream asked to be left alone, None where it did not say.

    `for_model` has it hold for the request's model only, where that is known.
    """

    says: Says
    wait_s: float | None = None
    for_model: bool = False
