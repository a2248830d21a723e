"""What was asked with each credential since it was last told, and which bans this worker has begun or ended."""

from proxy.rules.credentials import Ban, BanCause, Says
from proxy.shared_state.credential_events import BanChange, CredentialCounts

BANS_MAX = 10_000
"""Changes of bans that wait to be told; while Redis is away the oldest of more are left out."""


class Figures:
    """Counts of attempts by credential, and changes of bans."""

    def __init__(self) -> None:
        self._counts: dict[str, CredentialCounts] = {}
        self._bans: list[BanChange] = []

    def count(self, credential: str, says: Says, status: int, now_s: float) -> None:
        """Counts one attempt. What is nobody's fault, or the client's, is neither a success nor an error."""
        counts = self._counts.get(credential)
        if counts is None:
            counts = self._counts[credential] = CredentialCounts(credential)
        counts.requests += 1
        counts.last_used_s = now_s
        if says is Says.SUCCESS:
            counts.successes += 1
        elif says is not Says.NOTHING:
            counts.errors += 1
            counts.last_error, counts.last_error_s, counts.last_error_status = says, now_s, status

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
        counts, self._counts = self._counts, {}
        return list(counts.values())

    def take_bans(self) -> list[BanChange]:
        bans, self._bans = self._bans, []
        return bans
