"""The counters of access tokens' quotas, which live in Redis: what an operator asks of them, and does to them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from admin.rules.access_tokens import QuotaOperation
from admin.rules.token_records import Quota
from admin.services.failures import CounterAway, QuotaTooLarge
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.ledger import Change
from proxy.shared_state.token_store import Operation, QuotaRefused, TokenStore

ATTEMPTS = 2
"""To change a quota: where an answer was lost, the second one gets it, and changes nothing more."""


class Counters(Protocol):
    """What a service asks of counters, by the digests of their tokens."""

    async def read(self, digests: Sequence[str]) -> Mapping[str, Quota]:
        """What remains just now, of those that are there. Raises CounterAway."""

    async def change(self, digest: str, operation: QuotaOperation, amount: int | None, request_id: str) -> Quota:
        """Changes one, and the ledger with it; returns what it is then. The same `request_id` again changes nothing.

        Raises CounterAway, where it may have been changed all the same, and QuotaTooLarge.
        """


class SharedCounters:
    """The counters in Redis."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._store = TokenStore(client, guard)

    async def read(self, digests: Sequence[str]) -> Mapping[str, Quota]:
        try:
            found = await self._store.counters(digests)
        except StoreUnavailable:
            raise CounterAway from None
        return {
            digest: Quota(counter.remaining, counter.total)
            for digest, counter in zip(digests, found, strict=True)
            if counter is not None
        }

    async def change(self, digest: str, operation: QuotaOperation, amount: int | None, request_id: str) -> Quota:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                row = await self._store.change_quota(digest, Operation(operation), amount, request_id)
            except StoreUnavailable:
                if attempt == ATTEMPTS:
                    raise CounterAway from None
            except QuotaRefused as refused:
                # What is no more than a moment old in SQL may not be in Redis yet.
                raise (QuotaTooLarge if refused.reason == "out_of_range" else CounterAway) from None
            else:
                return _quota(row)
        raise AssertionError


def _quota(row: Change) -> Quota:
    return Quota(row.after, row.total)
