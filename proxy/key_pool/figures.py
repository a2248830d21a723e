"""What was asked with each credential since it was last told, and which bans this worker has begun or ended."""

from proxy.rules.credentials import Ban, BanCause, Says
from proxy.rules.selection import Candidate
from proxy.shared_state.credential_events import BanChange, CredentialCounts

BANS_MAX = 10_000
"""Changes of bans that wait to be told; while Redis is away the oldest of more are left out."""


class Figures:
    """Counts of attempts by credential, and changes of bans.

    Requests and successes are counted where selection has them, in a `Candidate`; here lies what of them has been told.
    """

    def __init__(self) -> None:
        self._used: list[Candidate] = []
        """Candidates that were used since counts were last taken, or whose use has succeeded since: `is_used`."""
        self._told: dict[Candidate, tuple[int, int]] = {}
        self._errors: dict[Candidate, CredentialCounts] = {}
        self._bans: list[BanChange] = []

    def begin(self, candidate: Candidate) -> None:
        """Notes the figures that a candidate begins with, which are known already."""
        self._told[candidate] = (candidate.requests, candidate.successes)

    def forget(self, candidate: Candidate) -> None:
        """Forgets a candidate that is gone."""
        for where in (self._told, self._errors):
            where.pop(candidate, None)

    def use(self, candidate: Candidate) -> None:
        """Has the counts of a candidate told. Most are used often, and `is_used` then."""
        candidate.is_used = True
        self._used.append(candidate)

    def count_error(self, candidate: Candidate, says: Says, status: int, now_s: float) -> None:
        """Counts one failed attempt, and keeps what was said of it last."""
        errors = self._errors.get(candidate)
        if errors is None:
            errors = self._errors[candidate] = CredentialCounts(candidate.id)
        errors.errors += 1
        errors.last_error, errors.last_error_s, errors.last_error_status = says, now_s, status

    def note(self, field: tuple[str, str], ban: Ban | None, now_s: float) -> None:
        """Notes that a ban has begun, has become another one, or has ended."""
        if ban is None or ban.cause is BanCause.COUNTING:
            change = BanChange(*field, None, now_s)
        else:
            change = BanChange(*field, ban.cause, ban.since_s, ban.until_s, ban.status, ban.strikes)
        self._bans.append(change)
        if len(self._bans) > BANS_MAX:
            del self._bans[0]

    def take_counts(self) -> list[CredentialCounts]:
        """Returns what was counted since it was last asked."""
        taken = []
        for candidate in self._used:
            candidate.is_used = False
            told = self._told.get(candidate)
            if told is None:  # it went while its last request ran
                continue
            counts = self._errors.pop(candidate, None) or CredentialCounts(candidate.id)
            counts.requests = candidate.requests - told[0]
            counts.successes = candidate.successes - told[1]
            counts.last_used_s = candidate.last_used_s
            self._told[candidate] = (candidate.requests, candidate.successes)
            taken.append(counts)
        self._used.clear()
        taken += self._errors.values()
        self._errors.clear()
        return taken

    def take_bans(self) -> list[BanChange]:
        bans, self._bans = self._bans, []
        return bans
