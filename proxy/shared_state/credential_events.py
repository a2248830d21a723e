"""What workers report of credentials through the stream of events: what was asked with each, and what became of it."""

import msgspec

from proxy.rules.credentials import BanCause

KIND = b"credentials"
"""The kind of a `CredentialsDelta`, as `events.STATISTICS` is one."""


class CredentialCounts(msgspec.Struct, array_like=True):
    """Attempts with one credential since the last delta; `last_error` is a word of `rules.credentials.Says`."""

    id: str
    requests: int = 0
    successes: int = 0
    errors: int = 0
    last_used_s: float = 0.0
    last_error: str = ""
    last_error_s: float = 0.0
    last_error_status: int = 0


class BanChange(msgspec.Struct, array_like=True, frozen=True):
    """A ban that began, or ended (`cause` None). Told by the one worker that made the change."""

    id: str
    model: str
    cause: BanCause | None
    at_s: float
    until_s: float = 0.0
    status: int = 0
    strikes: int = 0


class CredentialsDelta(msgspec.Struct, array_like=True):
    """What a worker tells at once. `sequence` counts its deltas from 1: each counts once, by that number."""

    worker: str
    sequence: int
    counts: list[CredentialCounts]
    bans: list[BanChange]
