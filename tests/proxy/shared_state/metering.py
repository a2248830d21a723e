"""What tests of access tokens share: tokens, a store, what lies in the ledger's stream."""

from typing import Any

from proxy.rules.access_tokens import AccessToken, Terms, Unit, digest_of
from proxy.shared_state import ledger
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.events import DATA, KIND
from proxy.shared_state.keys import METER_LEDGER
from proxy.shared_state.token_store import Counter, PublishedToken, TokenStore
from tests.redis_servers import DEADLINE_S

NOW_MS = 1_763_700_000_000


def guard_of(client: Client) -> Guard:
    return Guard(client, Breaker(), DEADLINE_S)


def tokens_of(client: Client) -> TokenStore:
    return TokenStore(client, guard_of(client))


def digest(number: int) -> str:
    return digest_of(b"flow_%d" % number)


def counted(number: int, remaining: int, *, revision: int = 1, terms: Terms | None = None) -> PublishedToken:
    """A token whose quota counts requests."""
    record = AccessToken(f"tok_{number}", revision, Unit.REQUESTS)
    return PublishedToken(digest(number), record, terms or Terms(), Counter(remaining, remaining, 1))


def timed(number: int, *, revision: int = 1, terms: Terms | None = None) -> PublishedToken:
    """A token that only time ends."""
    return PublishedToken(digest(number), AccessToken(f"tok_{number}", revision), terms or Terms())


async def rows_of(client: Any) -> list[ledger.Row]:
    """All rows of the ledger's stream."""
    rows: list[ledger.Row] = []
    for _, fields in await client.xrange(METER_LEDGER):
        assert fields[KIND] == ledger.LEDGER
        rows += ledger.read(fields[DATA])
    return rows
