"""The bans that a worker knows, and how it writes those that it finds.

The law of this file: a ban is changed in the store by compare-and-set, so each change has one writer and each failure
in a row counts once, whichever worker saw it. What was found counts here at once, and in the store a moment later; what
another worker wrote meanwhile is taken, and decided on again.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from proxy.config import KeyPool as Settings
from proxy.rules.bans import Answered, after, due, forgotten, with_probe
from proxy.rules.credentials import Ban, BanCause, Says, Verdict
from proxy.shared_state.linked_key_pool import Put, SharedBans

log = logging.getLogger("relaygate")

PROBE_LEASE_S = 30.0
"""How long others wait for the end of a probe before one of them may begin another: its worker may have died."""
ATTEMPTS_MAX = 5
LINES_PER_S = 10
LOOKED_AT_EACH_S = 500
FORGOTTEN_EACH_S = 50
"""Of so many bans a second, so many at most are taken away that ended long ago."""

Field = tuple[str, str]
"""A credential's id and a model, or ALL_MODELS."""


class Alone:
    """The store of a worker that shares nothing: whoever asks wins."""

    async def put(self, credential: str, model: str, expected: Ban | None, new: Ban | None) -> Put:  # noqa: ARG002
        return Put(True, new)


class Report(NamedTuple):
    """What an answer said."""

    verdict: Verdict
    answered: Answered


class BanBook:
    """`changed` hears of each field whose ban is another one; `written` of each change that this worker has made."""

    def __init__(
        self,
        store: SharedBans,
        unavailable: type[Exception],
        now_s: Callable[[], float],
        changed: Callable[[Field], object],
        written: Callable[[Field, Ban | None, Ban | None], object],
    ) -> None:
        self.settings = Settings()
        self._store = store
        self._unavailable = unavailable
        self._now_s = now_s
        self._changed = changed
        self._written = written
        self._stored: dict[Field, Ban] = {}
        self._bans: dict[Field, Ban] = {}
        self.concerned: dict[str, set[str]] = {}
        """Credentials that there is any ban of, each with what its bans are for."""
        self._reports: dict[Field, list[Report]] = {}
        self._claims: dict[Field, asyncio.Task[bool]] = {}
        """Probes that one request here asks for: no other has to, and none may have one where the store is away."""
        self._writer: asyncio.Task[None] | None = None
        self._lines_left = LINES_PER_S
        self._to_look_at: list[Field] = []
        self._forgetter: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._bans)

    def get(self, field: Field) -> Ban | None:
        return self._bans.get(field)

    def of(self, credential: str) -> list[Field]:
        """Returns the fields of a credential's bans."""
        return [(credential, model) for model in self.concerned.get(credential, ())]

    def report(self, field: Field, report: Report) -> None:
        """Takes what an answer said; it holds here at once."""
        before = self._bans.get(field)
        now = self._after(before, report)
        if now == before:
            return
        self._reports.setdefault(field, []).append(report)
        self._set(field, now)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def claim(self, field: Field) -> float:
        """Asks to try a credential whose ban has ended, which one of all workers may.

        Returns until when the probe is this worker's, which `Answered` asks for; 0 where it is not.
        """
        if field in self._reports or field in self._claims:
            return 0.0
        ban = self._stored.get(field)
        now_s = self._now_s()
        if ban is None or not due(ban, now_s):
            return 0.0
        probing = with_probe(ban, now_s, PROBE_LEASE_S)
        claim = self._claims[field] = asyncio.get_running_loop().create_task(self._ask(field, ban, probing))
        try:
            won = await asyncio.shield(claim)
        except asyncio.CancelledError:  # the client has left, and the probe is to be had by another request at once
            claim.add_done_callback(partial(self._give_back, field, probing))
            raise
        return probing.probe_until_s if won else 0.0

    async def _ask(self, field: Field, ban: Ban, probing: Ban) -> bool:
        """Returns whether the probe is this worker's."""
        try:
            put = await self._store.put(*field, ban, probing)
        except self._unavailable:
            put = Put(True, probing)
        finally:
            del self._claims[field]
        self.heard(field, put.there)
        return put.won

    def _give_back(self, field: Field, probing: Ban, claim: asyncio.Task[bool]) -> None:
        """Ends a probe that nobody makes."""
        if not claim.cancelled() and claim.exception() is None and claim.result():
            now_s = self._now_s()
            self.report(field, Report(Verdict(Says.NOTHING), Answered(now_s, now_s, 0, probing.probe_until_s)))

    def heard(self, field: Field, ban: Ban | None) -> None:
        """Takes a ban as the store has it."""
        if ban is None:
            self._stored.pop(field, None)
        else:
            self._stored[field] = ban
        for report in self._reports.get(field, ()):
            ban = self._after(ban, report)
        self._set(field, ban)

    def forget(self, credential: str) -> None:
        """Forgets the bans of a credential that is gone."""
        for field in self.of(credential):
            self._stored.pop(field, None)
            self._bans.pop(field, None)
        self.concerned.pop(credential, None)

    def tick(self) -> None:
        """To be called once a second: lines of the log that were held back become a number, and old bans go.

        Nobody tries a model that nobody asks for any more, so its ban would stay for ever.
        """
        if self._lines_left < 0:
            log.warning("credentials: %d further bans began or ended within a second", -self._lines_left)
        self._lines_left = LINES_PER_S
        if self._stored and (self._forgetter is None or self._forgetter.done()):
            self._to_look_at = self._to_look_at or list(self._stored)
            some = [self._to_look_at.pop() for _ in range(min(LOOKED_AT_EACH_S, len(self._to_look_at)))]
            old = [field for field in some if self._is_old(field)]
            if old:
                self._forgetter = asyncio.get_running_loop().create_task(self._forget_old(old[:FORGOTTEN_EACH_S]))

    def _is_old(self, field: Field) -> bool:
        ban = self._stored.get(field)
        return ban is not None and field not in self._reports and forgotten(ban, self._now_s(), self.settings)

    async def _forget_old(self, fields: list[Field]) -> None:
        for field in fields:
            ban = self._stored.get(field)
            if ban is None or not self._is_old(field):
                continue
            try:
                put = await self._store.put(*field, ban, None)
            except self._unavailable:
                return
            if put.won:
                self._tell(field, ban, None)
            self.heard(field, put.there)

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._claims:
            await asyncio.wait(self._claims.values(), timeout=1.0)
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=1.0)

    def _after(self, ban: Ban | None, report: Report) -> Ban | None:
        return after(ban, report.verdict, report.answered, self.settings)

    def _set(self, field: Field, ban: Ban | None) -> None:
        if self._bans.get(field) == ban:
            return
        models = self.concerned.setdefault(field[0], set())
        if ban is None:
            del self._bans[field]
            models.discard(field[1])
            if not models:
                del self.concerned[field[0]]
        else:
            self._bans[field] = ban
            models.add(field[1])
        self._changed(field)

    async def _write(self) -> None:
        while self._reports:
            field, reports = next(iter(self._reports.items()))
            await self._settle(field, reports)
            if not reports:
                self._reports.pop(field, None)

    async def _settle(self, field: Field, reports: list[Report]) -> None:
        """Writes what the reports so far make of the ban that is stored."""
        before = self._stored.get(field)
        for _ in range(ATTEMPTS_MAX):
            taken = len(reports)
            new = before
            for report in reports:
                new = self._after(new, report)
            if new == before:
                break
            try:
                put = await self._store.put(*field, before, new)
            except self._unavailable:
                put = Put(True, new)
            except Exception as error:
                log.error("a ban is not shared: %s", type(error).__name__)  # noqa: TRY400 - a line, not a traceback
                put = Put(True, new)
            if put.won:
                self._tell(field, before, new)
            before = put.there
            if put.won:
                break
        del reports[:taken]
        self.heard(field, before)

    def _tell(self, field: Field, before: Ban | None, new: Ban | None) -> None:
        was = before is not None and before.cause is not BanCause.COUNTING
        now = new is not None and new.cause is not BanCause.COUNTING
        if not was and not now:
            return
        if before is not None and new is not None and _told_as(before) == _told_as(new):
            return  # a probe was given back, say
        self._written(field, before, new)
        self._lines_left -= 1
        if self._lines_left < 0:
            return
        what = f"credential {field[0]}" + (f" for {field[1]!a}" if field[1] else "")
        if new is None or not now:
            log.info("%s is usable again", what)
        else:
            log.warning("%s is put aside: %s (%d), for %.0f s", what, new.cause, new.status, new.until_s - new.since_s)


def _told_as(ban: Ban) -> tuple[BanCause, float, float]:
    """What of a ban is told of."""
    return (ban.cause, ban.since_s, ban.until_s)
