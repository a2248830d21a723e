"""What operators may ask of access tokens, by the names that reference 002 has for it, and what tokens look like. Pure.

Amounts are integers of the token's unit. In what is asked, null is as good as absent, and 0 is no bound.
What becomes of it says `token_terms.py`.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

import msgspec

from admin.rules.route_specs import PREFIX_LENGTH_MAX
from proxy.rules.access_tokens import AMOUNT_MAX, OnStoreOutage, State, Unit

RANDOM_BYTES = 32
ID_RANDOM_BYTES = 12
PREFIX = "flow_"
ID_PREFIX = "tok_"
DAYS_MAX = 36_500
RATE_MAX = 1_000_000_000
LIST_MAX = 100

_TEXT = re.compile(r"flow_[0-9a-f]{64}")

Amount = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
Rate = Annotated[int, msgspec.Meta(ge=0, le=RATE_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Entry = Annotated[str, msgspec.Meta(min_length=1, max_length=PREFIX_LENGTH_MAX)]
Listed = Annotated[list[Entry], msgspec.Meta(max_length=LIST_MAX)]


class QuotaType(StrEnum):
    """What ends a token: time, a quota, or whichever comes first."""

    TIME = "time"
    COUNT = "count"
    HYBRID = "hybrid"


class Operation(StrEnum):
    """What becomes of the time that ends a token: days are added, it is set, or it is taken away."""

    ADD = "add"
    SET = "set"
    UNLIMITED = "unlimited"


class QuotaOperation(StrEnum):
    """ADD makes quota and remainder more; SET sets the remainder; RESET makes it the quota, which an amount sets."""

    ADD = "add"
    SET = "set"
    RESET = "reset"


class InvalidToken(ValueError):  # noqa: N818 - it says what is wrong
    """What was asked of a token cannot be done: a field, and what was expected of it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a new token, and of one that is there."""

    days: Annotated[int, msgspec.Meta(ge=1, le=DAYS_MAX)] | None = None
    specific_date: str | None = None
    quota_type: QuotaType | None = None
    total_quota: Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX)] | None = None
    unit: Unit | None = None
    rate_limit_per_minute: Rate | None = None
    rate_limit_burst: Rate | None = None
    rate_limit_window_seconds: Literal[60] | None = None
    concurrent: Rate | None = None
    routes: Listed | None = None
    models: Listed | None = None
    networks: Listed | None = None
    refunds: bool | None = None
    on_store_outage: OnStoreOutage | None = None


class NewToken(Asked, frozen=True, kw_only=True):
    """A token that is to be made."""

    ws_id: Name
    email: Name
    operation: Operation


class TokenChange(Asked, frozen=True, kw_only=True):
    """What is to change of a token."""

    operation: Operation | None = None
    quota_operation: QuotaOperation | None = None
    quota_amount: Amount | None = None
    state: Literal["active", "disabled"] | None = None


class TokenTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a token, but for how much remains. `expires_at` is in milliseconds since 1970; 0 is no bound.

    `unit` is None where only time ends it. The lists allow all where they are empty.
    """

    ws_id: str
    email: str
    state: State = State.ACTIVE
    quota_type: QuotaType = QuotaType.TIME
    unit: Unit | None = None
    expires_at: int | None = None
    per_minute: int = 0
    per_second: int = 0
    concurrent: int = 0
    routes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    refunds: bool = True
    on_store_outage: OnStoreOutage = OnStoreOutage.DENY


class QuotaChange(NamedTuple):
    """What is to be done to a counter. Only RESET may be without an amount."""

    operation: QuotaOperation
    amount: int | None


class Changed(NamedTuple):
    """`total` is the quota of a counter that the token has not had before, `quota` what is to be done to its own."""

    terms: TokenTerms
    total: int | None
    quota: QuotaChange | None


def text_of(random: bytes) -> str:
    """Returns a token of `random`, which has to be RANDOM_BYTES from the system's generator."""
    return PREFIX + random.hex()


def id_of(random: bytes) -> str:
    """Returns an id of `random`, ID_RANDOM_BYTES."""
    return ID_PREFIX + random.hex()


def is_text(name: str) -> bool:
    """Whether a name is a token, and no id of one."""
    return _TEXT.fullmatch(name) is not None


def shown(text: str) -> str:
    """What may be seen of a token."""
    return f"{text[: len(PREFIX) + 4]}...{text[-4:]}"
