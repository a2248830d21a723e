"""What an access token is to the data plane. What a client may do is decided in Redis (`shared_state/meter.lua`).

Of the token itself only a digest is stored anywhere. Amounts are integers of the token's unit, below 2^53: Lua counts
in doubles.
"""

import hashlib
from enum import StrEnum
from functools import lru_cache

import msgspec

AMOUNT_MAX = 2**53 - 1
"""The largest quota: 9 million US dollars in nano-USD."""


class Unit(StrEnum):
    """What a quota counts: requests, tokens of a language model, or billionths of a US dollar."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    NANO_USD = "nano_usd"


class OnStoreOutage(StrEnum):
    """What becomes of requests while Redis cannot be asked: DENY answers 503."""

    ALLOW = "allow"
    DENY = "deny"


class AccessToken(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An access token as workers get it, in msgpack. Whoever changes it counts `revision` up.

    `unit` is None where only time ends it. Empty `routes` (prefixes of routes), `models` (names; a last `*` stands for
    any ending) and `networks` (`10.0.0.0/8`) allow all. `refunds`: what could not be sent upstream is given back.
    `expires_ms` is that of its terms, for a worker that is without Redis.
    """

    id: str
    revision: int
    unit: Unit | None = None
    routes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    refunds: bool = True
    on_store_outage: OnStoreOutage = OnStoreOutage.DENY
    expires_ms: int = 0


class State(StrEnum):
    """Whether a token opens anything."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"


class Terms(msgspec.Struct, frozen=True):
    """What Redis decides by, beside the counter. Zero: no such bound. `expires_ms`: since 1970, by Redis's clock."""

    state: State = State.ACTIVE
    expires_ms: int = 0
    per_minute: int = 0
    per_second: int = 0
    concurrent: int = 0


class Action(StrEnum):
    """Why a counter changed, as its row tells it. CONSUME is an admission, SETTLE the difference to what was used."""

    INIT = "init"
    CONSUME = "consume"
    SETTLE = "settle"
    REFUND = "refund"
    RECHARGE = "recharge"


@lru_cache(maxsize=1024)
def digest_of(token: bytes) -> str:
    """Returns the name of a token's record: SHA-256 in hexadecimal. A token is long and random: no salt is needed.

    Those of the tokens met last are remembered, by token, in memory alone.
    """
    return hashlib.sha256(token).hexdigest()
