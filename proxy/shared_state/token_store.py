"""The access tokens in Redis, as the control plane publishes them, and the changes of a quota that operators ask for.

The law of this file: a counter is changed in Redis alone, in the step that tells the ledger of it. What is published
fills a counter that Redis does not have, or of which it has lost the latest changes, and touches no other.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Terms
from proxy.rules.metering import Counter as Counter
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import METER_LEDGER, METER_READY, METER_REVISION, METER_TOKEN
from proxy.shared_state.ledger import Change
from proxy.shared_state.scripts import Script

T = TypeVar("T")

CHUNK = 250
"""So many are written or read by one call: a millisecond's work for Redis."""

BY_REDIS = 0
"""Instead of a time: Redis's own."""

_publish = Script(Path(__file__).with_name("publish_tokens.lua"))
_change_quota = Script(Path(__file__).with_name("change_quota.lua"))
_encode = msgspec.msgpack.Encoder().encode
_change_decoder = msgspec.msgpack.Decoder(Change)


class Operation(StrEnum):
    """ADD adds to total and remaining; SET sets what remains; RESET sets it to the total, or both to an amount."""

    ADD = "add"
    SET = "set"
    RESET = "reset"


class PublishedToken(msgspec.Struct, frozen=True):
    """An access token as the control plane has it. `counter` is None where the record's unit is."""

    digest: str
    record: AccessToken
    terms: Terms
    counter: Counter | None = None


class QuotaRefused(Exception):  # noqa: N818 - it says what is the case
    """A quota was not changed. `reason` is `unknown` (there is no such token), `uncounted` or `out_of_range`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenStore:
    """Access tokens in Redis. Methods raise StoreUnavailable, and redis-py's errors where keys are of other types."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard

    async def publish(self, tokens: Sequence[PublishedToken]) -> int:
        """Puts tokens, each unless a later revision of it is there; returns how many counters were taken from them."""
        taken = 0
        for some in _chunks(tokens):
            keys = [key_of(token.digest) for token in some]
            arguments = (_encode([*map(_fields, some)]), *(_encode(token.record) for token in some))
            taken += await _publish.run(self._client, self._guard, keys, arguments)
        return taken

    async def forget(self, digests: Sequence[str]) -> None:
        """Removes tokens with all that counts for them. Their rows stay in the ledger."""
        for some in _chunks(digests):
            keys = [name for digest in some for name in (key_of(digest), rate_key_of(digest), held_key_of(digest))]
            await self._guard.call(lambda keys=keys: self._client.unlink(*keys))  # type: ignore[misc]

    async def change_quota(
        self, digest: str, operation: Operation, amount: int | None, request_id: str, now_ms: int = BY_REDIS
    ) -> Change:
        """Changes a quota; returns the ledger's row of it. An `amount` is needed but for RESET.

        After StoreUnavailable nobody knows whether it was done: it may be asked again with the same `request_id`, which
        does it once, as long as no other request has changed this quota in between. Its reason is `not_ready` where
        Redis does not have all tokens yet. Raises QuotaRefused.
        """
        if not _is_amount(operation, amount):
            raise QuotaRefused("out_of_range")
        keys = (key_of(digest), METER_LEDGER, METER_READY)
        arguments = (operation, "" if amount is None else amount, request_id, AMOUNT_MAX, now_ms)
        word, *row = await _change_quota.run(self._client, self._guard, keys, arguments)
        match word:
            case b"ok":
                return _change_decoder.decode(row[0])
            case b"not_ready":
                raise StoreUnavailable("not_ready")
            case _:
                raise QuotaRefused(word.decode())

    async def counters(self, digests: Sequence[str]) -> list[Counter | None]:
        """Returns the counters of tokens in their order; None where there is none."""
        found: list[Any] = []
        for some in _chunks(digests):
            found += await self._guard.call(lambda some=some: self._read(some))  # type: ignore[misc]
        return [None if None in values else Counter(*map(int, values)) for values in found]

    async def is_ready(self) -> bool:
        """Tells whether Redis has all tokens, so that requests are admitted."""
        return bool(await self._guard.call(lambda: self._client.exists(METER_READY)))

    async def set_ready(self) -> None:
        await self._guard.call(lambda: self._client.set(METER_READY, b"1"))

    async def revision(self) -> int:
        """Returns up to which revision Redis has tokens; 0 where it has none."""
        found = await self._guard.call(lambda: self._client.get(METER_REVISION))
        return int(found) if isinstance(found, bytes) and found.isdigit() else 0

    async def set_revision(self, revision: int) -> None:
        await self._guard.call(lambda: self._client.set(METER_REVISION, revision))

    async def _read(self, digests: Sequence[str]) -> Any:
        async with self._client.pipeline(transaction=False) as pipe:
            for digest in digests:
                pipe.hmget(key_of(digest), "remaining", "total", "sequence")
            return await pipe.execute()


def key_of(digest: str) -> str:
    return METER_TOKEN + digest


def rate_key_of(digest: str) -> str:
    return f"{METER_TOKEN}{digest}:rate"


def held_key_of(digest: str) -> str:
    return f"{METER_TOKEN}{digest}:held"


def _fields(token: PublishedToken) -> tuple[str, ...]:
    """Numbers are texts already: Lua would write large ones in another way."""
    record, terms, counter = token.record, token.terms, token.counter
    counted = ("", "", "") if counter is None else (counter.remaining, counter.total, counter.sequence)
    bounds = (terms.expires_ms, terms.per_minute, terms.per_second, terms.concurrent)
    return (record.id, str(record.revision), terms.state.value, *map(str, (*bounds, *counted)))


def _is_amount(operation: Operation, amount: int | None) -> bool:
    if amount is None:
        return operation is Operation.RESET
    return (1 if operation is Operation.ADD else 0) <= amount <= AMOUNT_MAX


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[first : first + CHUNK] for first in range(0, len(items), CHUNK)]
