"""A key pool that remembers what it is told, and credentials and bans to tell it."""

from collections.abc import Sequence

from proxy.rules.credentials import Ban, BanCause, Credential
from proxy.shared_state.credential_events import BanChange, CredentialCounts
from proxy.shared_state.linked_key_pool import SharedBans

BANNED = Ban(BanCause.RATE_LIMITED, 1.0, 31.5, failures=2)
DEAD = Ban(BanCause.DEAD, 2.0, 9e9, status=401)


def credential(number: int, secret: str = "encrypted") -> Credential:
    return Credential(f"k{number}", secret)


class Figures:
    """What waits to be told."""

    def __init__(self) -> None:
        self.counts: list[CredentialCounts] = []
        self.bans: list[BanChange] = []

    def take_counts(self) -> list[CredentialCounts]:
        counts, self.counts = self.counts, []
        return counts

    def take_bans(self) -> list[BanChange]:
        bans, self.bans = self.bans, []
        return bans


class Told:
    """What a key pool was told: all that it knows by now, and call by call."""

    def __init__(self) -> None:
        self.complete = False
        self.credentials: dict[str, Credential] = {}
        self.bans: dict[tuple[str, str], Ban] = {}
        self.told: list[object] = []
        self.figures = Figures()
        self.version = 0
        self.store: SharedBans | None = None

    def share(self, store: SharedBans, _unavailable: type[Exception]) -> None:
        self.store = store

    def credentials_changed(self, changed: Sequence[Credential], gone: Sequence[str]) -> None:
        self.told.append(([each.id for each in changed], list(gone)))
        self.credentials.update((each.id, each) for each in changed)
        for name in gone:
            del self.credentials[name]

    def ban_changed(self, name: str, model: str, ban: Ban | None) -> None:
        self.told.append((name, model, ban))
        if ban is None:
            self.bans.pop((name, model), None)
        else:
            self.bans[name, model] = ban
