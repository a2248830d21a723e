"""Deltas about credentials: what no table takes is none, and what is told adds up."""

from typing import Any

import msgspec
import pytest

from admin.rules import credential_deltas
from admin.rules.credential_deltas import ALL, Use
from admin.rules.periods import DAY_S, HOUR_S, Slot
from proxy.rules.credentials import OAUTH_ID, BanCause
from proxy.shared_state.credential_events import BanChange, CredentialCounts, CredentialsDelta

NOW_S = 1_800_000_000.0


def counts(name: str, requests: int, successes: int, at_s: float = NOW_S, **fields: Any) -> CredentialCounts:
    return CredentialCounts(name, requests, successes, requests - successes, at_s, **fields)


def delta(*parts: CredentialCounts | BanChange, sequence: int = 1, worker: str = "w") -> CredentialsDelta:
    return CredentialsDelta(
        worker,
        sequence,
        [one for one in parts if isinstance(one, CredentialCounts)],
        [one for one in parts if isinstance(one, BanChange)],
    )


def read(one: CredentialsDelta) -> CredentialsDelta | None:
    return credential_deltas.read(msgspec.msgpack.encode(one))


def test_a_delta_is_read_as_it_was_sent() -> None:
    one = delta(counts("key_1", 2, 1, last_error="failed"), BanChange("key_1", "gpt", BanCause.DEAD, NOW_S, NOW_S))
    assert read(one) == one
    assert credential_deltas.read(b"nothing") is None
    assert credential_deltas.read(msgspec.msgpack.encode([b"\xff", 1, [], []])) is None


@pytest.mark.parametrize(
    "odd",
    [
        delta(counts("", 1, 1)),
        delta(counts("key_1" * 20, 1, 1)),
        delta(counts("key_1", -1, 0)),
        delta(counts("key_1", 2**60, 0)),
        delta(counts("key_1", 1, 1, float("nan"))),
        delta(counts("key_1", 1, 1, float("inf"))),
        delta(counts("key_1", 1, 1, last_error="\0")),
        delta(counts("key_1", 1, 1, last_error="x" * 65)),
        delta(BanChange("key_1", "a\0", None, NOW_S)),
        delta(BanChange("key_1", "", BanCause.DEAD, NOW_S, float("inf"))),
        delta(sequence=0),
        delta(worker=""),
    ],
)
def test_what_no_table_takes_is_none(odd: CredentialsDelta) -> None:
    assert read(odd) is None


def test_counts_add_up_and_the_last_error_stays() -> None:
    first = counts("b", 2, 1, last_error="failed", last_error_s=NOW_S, last_error_status=500)
    early = counts("b", 1, 0, NOW_S - 9, last_error="dead", last_error_s=NOW_S - 9, last_error_status=401)
    assert credential_deltas.added_up([delta(first, counts("a", 1, 1)), delta(early)]) == [
        CredentialCounts("a", 1, 1, 0, NOW_S),
        CredentialCounts("b", 3, 1, 2, NOW_S, "failed", NOW_S, 500),
    ]


def test_slots_have_each_and_all_but_refusals_of_the_oauth_credential() -> None:
    refused = CredentialCounts(OAUTH_ID, errors=3, last_error="unauthorized", last_error_s=NOW_S)
    deltas = [delta(counts("a", 2, 1), counts("b", 1, 1, 0.0), refused)]
    slots = credential_deltas.rolled_up(deltas, NOW_S + HOUR_S)
    assert slots == {
        Slot(HOUR_S, 1_800_000_000): {"a": Use(2, 1, 1), ALL: Use(2, 1, 1)},
        Slot(HOUR_S, 1_800_003_600): {"b": Use(1, 1, 0), ALL: Use(1, 1, 0)},
        Slot(DAY_S, 1_799_971_200): {"a": Use(2, 1, 1), "b": Use(1, 1, 0), ALL: Use(3, 2, 1)},
    }


def test_of_each_ban_the_last_change_counts() -> None:
    began, ended = BanChange("a", "", BanCause.DEAD, NOW_S), BanChange("a", "", None, NOW_S + 5)
    other = BanChange("a", "gpt", BanCause.DEAD, NOW_S - 5)
    counting = BanChange("b", "", BanCause.COUNTING, NOW_S)
    assert credential_deltas.last_bans([delta(ended, counting), delta(began, other)]) == [other, ended]
