"""The stream `keys.METER_LEDGER`: how its entries are spelled. `meter.lua` and `change_quota.lua` write them.

An entry has the fields of `events.py`, of the kind `LEDGER`. Its data is an array of changes and outcomes in the order
in which they came about; those that came together have one time.
"""

from typing import TypeAlias

import msgspec
from msgspec.structs import astuple

from proxy.rules.access_tokens import Action

LEDGER = b"ledger"
"""The kind of an entry."""


class Change(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """One change of a counter. `sequence` counts those of its token without gaps, from the 1 of its `init` row.

    `before` and `after` are what remains, `total` the quota as it is then, `at_ms` Redis's time.
    """

    token: str
    sequence: int
    action: Action
    before: int
    after: int
    total: int
    request_id: str
    at_ms: int


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """How a request ended that a change of action CONSUME is for. `error_type` is empty for a success.

    `usage` says what the amount that was used rests on: `exact`, `estimated`, `unknown`, or nothing for requests.
    """

    token: str
    request_id: str
    success: bool
    error_type: str
    error_message: str
    usage: str
    at_ms: int


class Ended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An outcome but for its time."""

    token: str
    request_id: str
    success: bool
    error_type: str
    error_message: str
    usage: str


class Outcomes(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Many outcomes, all of one time."""

    ended: list[Ended]
    at_ms: int


Row: TypeAlias = Change | Outcome

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Change | Outcome | Outcomes]).decode


def without_time(row: Outcome | Outcomes) -> bytes:
    """Returns a row but for its last element, the time, which is added where it is decided: one byte, being 0 here."""
    return _encode(row)[:-1]


def outcome(ended: Ended, at_ms: int) -> Outcome:
    token, request_id, success, error_type, error_message, usage = astuple(ended)
    return Outcome(token, request_id, success, error_type, error_message, usage, at_ms)


def read(data: bytes) -> list[Row]:
    """Returns the changes and outcomes of an entry. Raises msgspec's errors, and ValueError for what is not UTF-8."""
    rows: list[Row] = []
    for row in _decode(data):
        if isinstance(row, Outcomes):
            rows += [outcome(each, row.at_ms) for each in row.ended]
        else:
            rows.append(row)
    return rows
