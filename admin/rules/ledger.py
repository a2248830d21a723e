"""Rows of the ledger on their way from the stream into tables: which are new, and where they stand there. Pure.

The law of this file: a token's rows follow each other in SQL, each beginning where the one before it ended, and a unit
that Redis has taken or given is never without one. A Redis that has lost its latest changes counts on from older ones,
so its rows come with numbers that SQL has given to others (a **fork**): such a row is put behind the last one, with
what it changes and with the number that follows. Whoever publishes then has Redis take over from there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from proxy.rules.access_tokens import AMOUNT_MAX, Action
from proxy.shared_state import ledger
from proxy.shared_state.ledger import Change, Outcome, Row

TOKEN_CHARACTERS_MAX = 64
REQUEST_CHARACTERS_MAX = 128
TYPE_CHARACTERS_MAX = 64
MESSAGE_CHARACTERS_MAX = 1000
MARK_CHARACTERS_MAX = 16
TIME_MAX_MS = 2**43

Key = tuple[str, str]
"""What an outcome and the change that it is of have in common: the token and the request's id."""


class Standing(NamedTuple):
    """Where the rows of a token end: the number of the last one, and what it left."""

    sequence: int
    remaining: int
    total: int


class Mark(NamedTuple):
    """What tells a change from others whose number it may share."""

    token: str
    action: str
    request_id: str
    at_ms: int


class Owner(NamedTuple):
    """What a token's rows repeat of it."""

    ws_id: str
    email: str
    unit: str | None


NOBODY = Owner("", "", None)
ENDING = ("execution_success", "execution_error_type", "execution_error_message", "usage_mark")
OPEN = (None,) * len(ENDING)
COLUMNS = (
    *("token", "sequence", *Owner._fields, "quota_before", "quota_after", "quota_change", "total_after"),
    *("action", "request_id", *ENDING, "created_at"),
)


class Continued(NamedTuple):
    """Changes as they go into the table, where each token stands then, how many never came, and how many are forks."""

    changes: list[Change]
    standings: dict[str, Standing]
    missing: int
    forks: int


class Joined(NamedTuple):
    """Outcomes by what they are of, for the changes that go into the table with them, and all others."""

    outcomes: dict[Key, Outcome]
    others: list[Outcome]


def read(data: bytes) -> list[Row] | None:
    """Returns the rows of an entry, None where it has others or what no table takes."""
    try:
        rows = ledger.read(data)
    except (msgspec.DecodeError, ValueError):  # the latter of text that is not UTF-8
        return None
    return rows if all(map(_fits, rows)) else None


def doubtful(changes: Iterable[Change], standings: Mapping[str, Standing]) -> set[str]:
    """Returns the tokens of which a change has a number that SQL has given: it may be there already, or be a fork."""
    return {
        one.token
        for one in changes
        if (standing := standings.get(one.token)) is not None and one.sequence <= standing.sequence
    }


def continued(changes: Iterable[Change], standings: Mapping[str, Standing], there: Collection[Mark]) -> Continued:
    """Puts changes, in the order of the stream, behind what SQL has. `there` are all doubtful ones that it has.

    A token that SQL knows nothing of begins wherever it does. What comes behind its last number is none of `there`,
    though a client may have given its request the id of another one, which was admitted in the same millisecond.
    """
    after: dict[str, Standing] = {}
    taken: list[Change] = []
    missing = forks = 0
    for one in changes:
        known = standings.get(one.token)
        if known is not None and one.sequence <= known.sequence and mark_of(one) in there:
            continue
        before = after.get(one.token) or known
        if before is None:
            change = one
        elif one.sequence > before.sequence:
            missing += one.sequence - before.sequence - 1
            change = one
        else:
            forks += 1
            change = _behind(before, one)
        taken.append(change)
        after[one.token] = Standing(change.sequence, change.after, change.total)
    return Continued(taken, after, missing, forks)


def joined(changes: Sequence[Change], outcomes: Iterable[Outcome]) -> Joined:
    """Finds the outcomes of changes that are yet to go into the table."""
    wanted = {key_of(one) for one in changes if one.action is Action.CONSUME}
    found: dict[Key, Outcome] = {}
    others = []
    for one in outcomes:
        key = key_of(one)
        if key in wanted and key not in found:
            found[key] = one
        else:
            others.append(one)
    return Joined(found, others)


def rows(
    changes: Iterable[Change], owners: Mapping[str, Owner], outcomes: Mapping[Key, Outcome]
) -> list[tuple[Any, ...]]:
    """Returns changes as they go into `COLUMNS`, admissions with their outcomes. An unknown token has no owner."""
    left = dict(outcomes)
    found = []
    for one in changes:
        request_id = _plain(one.request_id, REQUEST_CHARACTERS_MAX)
        outcome = left.pop((one.token, request_id), None) if left and one.action is Action.CONSUME else None
        found.append(
            (
                one.token,
                one.sequence,
                *owners.get(one.token, NOBODY),
                one.before,
                one.after,
                one.after - one.before,
                one.total,
                one.action.value,
                request_id,
                *(OPEN if outcome is None else ending(outcome)),
                one.at_ms,
            )
        )
    return found


def ending(outcome: Outcome) -> tuple[Any, ...]:
    """Returns what an outcome fills into `ENDING`. A success has neither type nor message of an error."""
    return (
        int(outcome.success),
        _plain(outcome.error_type, TYPE_CHARACTERS_MAX) or None,
        _plain(outcome.error_message, MESSAGE_CHARACTERS_MAX) or None,
        _plain(outcome.usage, MARK_CHARACTERS_MAX) or None,
    )


def key_of(row: Row) -> Key:
    return row.token, _plain(row.request_id, REQUEST_CHARACTERS_MAX)


def mark_of(change: Change) -> Mark:
    return Mark(change.token, change.action.value, _plain(change.request_id, REQUEST_CHARACTERS_MAX), change.at_ms)


def _behind(before: Standing, fork: Change) -> Change:
    """A recharge says itself what the quota is; all other changes leave it what it was."""
    return Change(
        fork.token,
        before.sequence + 1,
        fork.action,
        before.remaining,
        before.remaining + fork.after - fork.before,
        fork.total if fork.action is Action.RECHARGE else before.total,
        fork.request_id,
        fork.at_ms,
    )


def _plain(text: str, characters_max: int) -> str:
    """PostgreSQL takes no NUL, and no database takes more than its column has room for."""
    return text if len(text) <= characters_max and "\0" not in text else text.replace("\0", "")[:characters_max]


def _fits(row: Row) -> bool:
    if not (0 < len(row.token) <= TOKEN_CHARACTERS_MAX and "\0" not in row.token and 0 <= row.at_ms < TIME_MAX_MS):
        return False
    if isinstance(row, Outcome):
        return True
    return (
        0 < row.sequence <= AMOUNT_MAX
        and -AMOUNT_MAX <= row.before <= AMOUNT_MAX
        and -AMOUNT_MAX <= row.after <= AMOUNT_MAX
        and 0 <= row.total <= AMOUNT_MAX
    )
