"""From Redis to SQL: what lies in a stream, of events or of the ledger, taken once and acknowledged when committed.

All control planes read a stream under one name, so what one of them was given and did not finish is read by the next,
and by itself after a restart. So an entry may come twice, to two of them at once too: each kind's handler tells by what
SQL says already, under a lock that is held until the commit. Nothing is acknowledged but what is committed; while SQL
is down, all waits in the stream.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database, DatabaseDown
from admin.services import events
from admin.services.events import Entry, Handler, Taken
from admin.services.stream import Stream
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.events import DATA, KIND
from proxy.shared_state.keys import EVENTS, METER_LEDGER

log = logging.getLogger("relaygate")

GROUP = "control"
FIRST_BATCH_ENTRIES = 8
UNKNOWN = b"unknown"
"""Stands for kinds that no handler is for."""


Batch: TypeAlias = list[tuple[bytes, dict[bytes, bytes]]]
"""Entries as Redis gives them: ids and fields."""


class Taking(NamedTuple):
    """How a stream is taken. `what` names in the log what lies in it, `lock` whom the database lets take it.

    `poll_s` is how long nothing is asked after nothing came. A batch has `batch_bytes` if entries are alike, and
    `entries_max` at most. What has not lain there for `hold_s` waits for what belongs to it.
    """

    key: str
    what: str
    lock: str
    poll_s: float
    entries_max: int
    batch_bytes: int
    hold_s: float = 0.0


OF_EVENTS = Taking(EVENTS, "events", "events", 1.0, 1000, 8 * 1024 * 1024)
"""A second's entry of a worker with 10,000 busy routes has 2 MB."""
OF_LEDGER = Taking(METER_LEDGER, "ledger rows", "ledger", 0.5, 4000, 2 * 1024 * 1024, 1.0)
"""Of an entry for each turn of a worker's loop, with a row of 100 bytes or with hundreds. A request that ends within a
second is one statement so, and not two."""


class Consumer:
    """Takes entries of a stream to handlers, by kind."""

    def __init__(
        self,
        client: Client,
        guard: Guard,
        database: Database,
        handlers: Mapping[bytes, Handler],
        stream: Stream,
        taking: Taking = OF_EVENTS,
    ) -> None:
        self._client = client
        self._guard = guard
        self._database = database
        self._handlers = handlers
        self._batch_entries = FIRST_BATCH_ENTRIES
        self._problem = ""
        self._stream = stream
        self._taking = taking
        self._now_s = 0.0
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Takes what comes until it is cancelled."""
        while True:
            if not await self._poll_and_tell(self._taking.hold_s):
                await asyncio.sleep(self._taking.poll_s)

    async def drain(self) -> None:
        """Takes what waits, as long as that goes: the end of the control plane."""
        while await self._poll_and_tell(0):
            pass

    async def take_all(self) -> None:
        """Takes what waits, all of it. Raises StoreUnavailable, DatabaseDown."""
        while await self.poll(0):
            pass

    async def poll(self, hold_s: float) -> bool:
        """Takes a batch of what has lain there for `hold_s`. Returns whether more may wait.

        Raises StoreUnavailable, DatabaseDown.
        """
        async with self._turn:
            return await self._poll(hold_s)

    async def _poll(self, hold_s: float) -> bool:
        size = self._batch_entries
        try:
            found = await self._read(size)
        except StoreUnavailable as error:
            if error.reason == "timeout":
                self._batch_entries = max(1, size // 4)
            raise
        batch = [*takewhile(lambda entry: not self._is_young(entry[0], hold_s), found)]
        if not batch:
            return False
        average = sum(len(fields.get(DATA, b"")) for _, fields in batch) // len(batch) + 1
        self._batch_entries = min(self._taking.entries_max, max(1, self._taking.batch_bytes // average))
        await self._hand_over(batch)
        return len(batch) >= size

    async def _hand_over(self, batch: Batch) -> None:
        """Has a batch committed, then acknowledged."""
        taken = await self._database.transact(lambda connection: self._take(connection, batch))
        what = self._taking.what
        for kind, one in taken.items():
            one.committed()
            if one.undecodable:
                first = one.undecodable[0].id
                count = len(one.undecodable)
                log.error("%s (%s): dropped %d that cannot be decoded, from %s on", what, kind, count, first)
            if one.missing:
                log.error("%s (%s): %d were lost on the way here", what, kind, one.missing)
        await self._guard.call(lambda: self._acknowledge([entry_id for entry_id, _ in batch]))
        await self._look()

    async def _poll_and_tell(self, hold_s: float) -> bool:
        """Polls, and says in one line when that stops being possible, and when it is again."""
        try:
            more = await self.poll(hold_s)
        except StoreUnavailable:  # the guard tells of it
            return False
        except Exception as error:
            # A database's text may differ from one attempt to the next.
            problem = type(error).__name__ if isinstance(error, DatabaseDown) else f"{type(error).__name__}: {error}"
            if problem != self._problem:
                shown = error if isinstance(error, DatabaseDown) else problem
                log.error("%s wait, none is lost: %s", self._taking.what, shown)  # noqa: TRY400
            self._problem = problem
            return False
        if self._problem:
            log.warning("%s are taken again", self._taking.what)
            self._problem = ""
        return more

    async def _read(self, size: int) -> Batch:
        """Takes over what is new, and returns the oldest entries of all that are not acknowledged."""
        key = self._taking.key
        try:
            await self._guard.call(lambda: self._client.xreadgroup(GROUP, GROUP, {key: ">"}, count=size))
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._guard.call(self._make_group)
            await self._guard.call(lambda: self._client.xreadgroup(GROUP, GROUP, {key: ">"}, count=size))
        await self._look()
        answer: Any = await self._guard.call(lambda: self._client.xreadgroup(GROUP, GROUP, {key: "0"}, count=size))
        batch: Batch = dict(answer).get(key.encode(), [])
        return batch

    async def _make_group(self) -> None:
        """Makes the group, and the stream if need be: at the first start, and when Redis has lost them."""
        try:
            await self._client.xgroup_create(self._taking.key, GROUP, "0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _look(self) -> None:
        """Notes how far behind we are. All that is older than the oldest that is pending is done."""
        waiting = await self._guard.call(lambda: self._client.xlen(self._taking.key))
        pending = await self._guard.call(lambda: self._client.xpending(self._taking.key, GROUP))
        seconds, microseconds = await self._guard.call(self._client.time)
        self._now_s = seconds + microseconds / 1e6
        oldest = pending["min"]
        self._stream.note(waiting, 0.0 if oldest is None else self._age_s(oldest))

    def _age_s(self, entry_id: bytes) -> float:
        """How long an entry has waited, by Redis's clock. That may have gone back, but its ids never do."""
        return max(0.0, self._now_s - events.position(entry_id.decode())[0] / 1000)

    def _is_young(self, entry_id: bytes, hold_s: float) -> bool:
        """Whether what belongs to an entry may still come. One of the future is none: the clock has gone back."""
        return abs(self._now_s - events.position(entry_id.decode())[0] / 1000) < hold_s

    async def _take(self, connection: AsyncConnection, batch: Batch) -> dict[str, Taken]:
        await events.lock(connection, self._taking.lock)
        by_kind: dict[bytes, list[Entry]] = {}
        for entry_id, fields in batch:
            if fields:  # none: somebody has deleted it from the stream
                entry = Entry(entry_id.decode(), self._age_s(entry_id), fields.get(DATA, b""))
                kind = fields.get(KIND, b"")
                by_kind.setdefault(kind if kind in self._handlers else UNKNOWN, []).append(entry)
        taken = {}
        for kind, entries in by_kind.items():
            name, handler = kind.decode(), self._handlers.get(kind)
            one = Taken(entries) if handler is None else await handler.take(connection, entries)
            if one.missing:
                await events.drop_missing(connection, name, one.missing)
            if one.undecodable:
                one = one._replace(undecodable=await events.drop_undecodable(connection, name, one.undecodable))
            taken[name] = one
        return taken

    async def _acknowledge(self, ids: Sequence[bytes]) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xack(self._taking.key, GROUP, *ids)
            pipe.xdel(self._taking.key, *ids)
            await pipe.execute()
