"""The proof that Redis and SQL agree: of each token, that Redis's counter is what SQL has and what is on its way there.

Counters go on meanwhile. What is on its way is in the stream until SQL has committed it; so whoever asks first SQL,
then the counters, then the stream and SQL once more misses none.
"""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from admin.rules import ledger
from admin.rules.ledger_chain import Point
from admin.services.ledger_proof import Counted, LedgerProof
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.events import DATA
from proxy.shared_state.keys import METER_LEDGER
from proxy.shared_state.ledger import Change
from proxy.shared_state.token_store import Counter, TokenStore

ENTRIES_MAX = 500


class Differs(NamedTuple):
    """A token of which Redis and SQL differ, and how."""

    token: str
    problem: str


class _Ahead(NamedTuple):
    """A token of which Redis has counted further than SQL had: what Redis has, and how far that is found."""

    wanted: Point
    reached: Point


class _Wanted(NamedTuple):
    """What a row in SQL is to say: that so much was left by it."""

    token: str
    point: Point


class CounterProof:
    def __init__(self, client: Client, guard: Guard, proof: LedgerProof) -> None:
        self._client = client
        self._guard = guard
        self._store = TokenStore(client, guard)
        self._proof = proof

    async def is_ready(self) -> bool:
        """Whether Redis has all tokens. Raises StoreUnavailable."""
        return await self._store.is_ready()

    async def differing(self) -> Differs | None:
        """Returns a token that differs, the first where it is SQL's own; None where all agree.

        Raises DatabaseDown, StoreUnavailable.
        """
        published = await self._store.revision()
        ahead: dict[str, _Ahead] = {}
        async for page in self._proof.counted():
            for token, counter in zip(page, await self._store.counters([one.digest for one in page]), strict=True):
                if problem := _difference(token, counter, published):
                    return Differs(token.id, problem)
                if counter is not None and counter.sequence > token.point.sequence:
                    ahead[token.id] = _Ahead(Point(counter.sequence, counter.remaining), token.point)
        if not ahead:
            return None
        followed = await self._followed(ahead)
        return followed if isinstance(followed, Differs) else await self._in_sql(followed)

    async def _followed(self, ahead: dict[str, _Ahead]) -> list[_Wanted] | Differs:
        """Follows what is on its way; returns what SQL must have by now, for Redis to be right."""
        wanted = []
        async for change in self._waiting():
            one = ahead.get(change.token)
            if one is None or not one.reached.sequence < change.sequence <= one.wanted.sequence:
                continue
            if change.sequence > one.reached.sequence + 1:  # SQL has taken what was between
                wanted.append(_Wanted(change.token, Point(change.sequence - 1, change.before)))
            elif change.before != one.reached.balance:
                begins = f"row {change.sequence} begins with {change.before}"
                return Differs(change.token, f"{begins} in Redis's stream, and {one.reached.balance} was left")
            ahead[change.token] = one._replace(reached=Point(change.sequence, change.after))
        for token, one in ahead.items():
            if one.reached.sequence < one.wanted.sequence:
                wanted.append(_Wanted(token, one.wanted))
            elif one.reached != one.wanted:
                rows, counted = one.reached.balance, one.wanted.balance
                return Differs(token, f"with the rows in Redis's stream {rows} remains, and Redis counts {counted}")
        return wanted

    async def _in_sql(self, wanted: list[_Wanted]) -> Differs | None:
        for token, point in wanted:
            left = await self._proof.left_by(token, point.sequence)
            if left != point.balance:
                there = "is missing" if left is None else f"leaves {left}"
                return Differs(token, f"row {point.sequence} {there}, and Redis counts {point.balance} after it")
        return None

    async def _waiting(self) -> AsyncIterator[Change]:
        """The changes in the stream, oldest first."""
        begin = "-"
        while True:
            entries: Any = await self._guard.call(
                lambda at=begin: self._client.xrange(METER_LEDGER, at, "+", count=ENTRIES_MAX)  # type: ignore[misc]
            )
            for _, fields in entries:
                for row in ledger.read(fields.get(DATA, b"")) or ():
                    if isinstance(row, Change):
                        yield row
            if len(entries) < ENTRIES_MAX:
                return
            begin = f"({entries[-1][0].decode()}"


def _difference(token: Counted, counter: Counter | None, published: int) -> str:
    """What is wrong at first sight. Who is ahead is looked at once all are known."""
    if counter is None:
        is_expected = token.is_deleted or token.revision > published
        return "" if is_expected else "Redis does not have its counter"
    if counter.sequence < token.point.sequence:
        return f"Redis has counted {counter.sequence} changes, and the database has {token.point.sequence}"
    if counter.sequence > token.point.sequence:
        return ""
    if counter.remaining != token.point.balance:
        return f"{counter.remaining} remains in Redis, and {token.point.balance} in the database"
    if counter.total != token.total:
        return f"the quota is {counter.total} in Redis, and {token.total} in the database"
    return ""
