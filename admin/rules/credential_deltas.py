"""What workers tell of credentials, on its way into tables: what fits them, and what it adds up to. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from admin.rules.deltas import NUMBER_MAX, TIME_MAX_S, WORKER_CHARACTERS_MAX
from admin.rules.periods import DAY_S, HOUR_S, Slot, slot_of
from proxy.rules.credentials import OAUTH_ID, BanCause
from proxy.shared_state.credential_events import BanChange, CredentialCounts, CredentialsDelta

ID_CHARACTERS_MAX = 64
WORD_CHARACTERS_MAX = 64
MODEL_CHARACTERS_MAX = 255
ALL = ""
"""Stands in the place of a credential for all of them together."""

_decoder = msgspec.msgpack.Decoder(CredentialsDelta)


class Use(NamedTuple):
    """What was asked with a credential."""

    requests: int = 0
    successes: int = 0
    errors: int = 0

    def plus(self, other: "Use") -> "Use":
        return Use(self.requests + other.requests, self.successes + other.successes, self.errors + other.errors)


Slots = dict[Slot, dict[str, Use]]
"""By hour and by day, and in each by credential and of all."""


def read(data: bytes) -> CredentialsDelta | None:
    """Returns a delta, None where it is none or has what no table takes."""
    try:
        delta = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError):  # the latter of text that is not UTF-8
        return None
    return delta if _fits(delta) else None


def added_up(deltas: Iterable[CredentialsDelta]) -> list[CredentialCounts]:
    """Returns what was counted of each credential, by id. Of errors, the last one stays."""
    found: dict[str, CredentialCounts] = {}
    for delta in deltas:
        for counts in delta.counts:
            total = found.setdefault(counts.id, CredentialCounts(counts.id))
            total.requests += counts.requests
            total.successes += counts.successes
            total.errors += counts.errors
            total.last_used_s = max(total.last_used_s, counts.last_used_s)
            if counts.last_error and counts.last_error_s >= total.last_error_s:
                total.last_error, total.last_error_s = counts.last_error, counts.last_error_s
                total.last_error_status = counts.last_error_status
    return [found[name] for name in sorted(found)]


def rolled_up(deltas: Iterable[CredentialsDelta], now_s: float) -> Slots:
    """Returns what was counted in each slot. What has no time of its own is of now.

    Not of the OAuth credential, of which workers tell refusals only.
    """
    slots: Slots = {}
    for delta in deltas:
        for counts in delta.counts:
            if counts.id == OAUTH_ID:
                continue
            use = Use(counts.requests, counts.successes, counts.errors)
            for period_s in (HOUR_S, DAY_S):
                slot = slots.setdefault(slot_of(period_s, counts.last_used_s or now_s), {})
                for name in (counts.id, ALL):
                    slot[name] = slot.get(name, Use()).plus(use)
    return slots


def last_bans(deltas: Iterable[CredentialsDelta]) -> list[BanChange]:
    """Returns the last change of each ban, in the order of time. What is being counted is no ban."""
    found: dict[tuple[str, str], BanChange] = {}
    for delta in deltas:
        for ban in delta.bans:
            before = found.get((ban.id, ban.model))
            if ban.cause is not BanCause.COUNTING and (before is None or ban.at_s >= before.at_s):
                found[ban.id, ban.model] = ban
    return sorted(found.values(), key=lambda ban: ban.at_s)


def _fits(delta: CredentialsDelta) -> bool:
    return (
        _is_name(delta.worker, WORKER_CHARACTERS_MAX)
        and 0 < delta.sequence <= NUMBER_MAX
        and all(map(_counts_fit, delta.counts))
        and all(map(_ban_fits, delta.bans))
    )


def _counts_fit(counts: CredentialCounts) -> bool:
    numbers = (counts.requests, counts.successes, counts.errors, counts.last_error_status)
    times = (counts.last_used_s, counts.last_error_s)
    return (
        _is_name(counts.id, ID_CHARACTERS_MAX)
        and len(counts.last_error) <= WORD_CHARACTERS_MAX
        and "\0" not in counts.last_error
        and all(0 <= number <= NUMBER_MAX for number in numbers)
        and counts.last_error_status < 1000
        and all(0 <= time_s <= TIME_MAX_S for time_s in times)
    )


def _ban_fits(ban: BanChange) -> bool:
    return (
        _is_name(ban.id, ID_CHARACTERS_MAX)
        and "\0" not in ban.model
        and 0 <= ban.status < 1000
        and all(0 <= time_s <= TIME_MAX_S for time_s in (ban.at_s, ban.until_s))
    )


def _is_name(text: str, characters_max: int) -> bool:
    return 0 < len(text) <= characters_max and "\0" not in text
