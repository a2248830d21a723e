"""Which credential a request goes out with.

Candidates stand in selectors, one for each tier, as long as nothing keeps them from being chosen; a ban takes them out
and its lifting puts them back, so a choice does not look at those that cannot be chosen, however many they are. A ban
that has ended is not lifted: the credential is **due**, and one request of all workers' may try it, the probe.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from proxy.config import Algorithm
from proxy.config import KeyPool as Settings
from proxy.key_pool.ban_book import Alone, BanBook, Field, Report
from proxy.key_pool.ban_ends import BanEnds
from proxy.key_pool.figures import Figures
from proxy.key_pool.traces import PASSED_OVER_MAX, Look, Over, Trace, Traces
from proxy.rules.bans import Answered, due, elsewhere, is_soft, scope, usable
from proxy.rules.credential_fields import Placement, shown_as
from proxy.rules.credentials import ALL_MODELS, OAUTH_ID, Ban, Credential, Kind, Says, Verdict
from proxy.rules.headers import Header
from proxy.rules.selection import Candidate, Selector, selector
from proxy.rules.tiers import group_of, tiers
from proxy.shared_state.linked_key_pool import SharedBans

log = logging.getLogger("relaygate")

REDRAWS_MAX = 32
"""How many candidates that the request's model is banned for are drawn before a selector is made for the model."""
MODELS_MAX = 1000
"""Names of models that are remembered. Clients name them, and may name anything."""
LOOKED_AT_MAX = 100
"""Of credentials that are put aside softly, where nothing else is left."""
FILL_SLICE = 1000
"""So many candidates are looked at for a new selector at once, which takes 5 ms at most; the rest follows while it is
in use. With 100,000 the event loop would stand still for half a second."""
FILL_PAUSE_S = 0.005
FILLED_MIN = 100
"""A selector with fewer is filled further before it is used: a request may try 20, and draw 32."""
MODEL_SELECTORS_MAX = 256
"""Selectors for one model each, which few credentials may be used for just now."""

LOOKED_AT_FOR_TRACE_MAX = 100
"""The same, to name them in a trace."""

BARS_TOLD = 10
"""Of credentials that cannot be used, so many a second have a line of their own."""

FIXED_ORDER = frozenset((Algorithm.ROUND_ROBIN, Algorithm.RANDOM, Algorithm.CACHE_AFFINITY))
"""Algorithms for which it makes no difference how a credential was used."""

Groups = tuple[str, ...]


class Choice(NamedTuple):
    """A credential for one attempt. `probe` is the ban that this attempt tries, until `probe_until_s`."""

    candidate: Candidate
    probe: Field | None = None
    probe_until_s: float = 0.0


def sealed(_secret: str, purpose: str) -> str:
    """Decrypts nothing: for a pool that only has to be there."""
    raise LookupError(f"the secret of {purpose} is not asked for here")


class KeyPool:
    """The credentials of a worker, by group, and what is known of them."""

    def __init__(
        self,
        reveal: Callable[[str, str], str] = sealed,
        now_s: Callable[[], float] = time.time,
        random01: Callable[[], float] = random.random,
    ) -> None:
        """`reveal` decrypts a secret for a purpose; it raises an Exception where it cannot."""
        self.settings = Settings()
        self.api_key: str | None = None
        """The fixed credential, which is not of the pool."""
        self.version = 0
        """The number of the published configuration in use."""
        self.complete = True
        """Whether what is published is known: until then nobody can tell that there is no credential."""
        self.figures = Figures()
        self.traces = Traces()
        self._reveal = reveal
        self.now_s = now_s
        self._random01 = random01
        self._credentials: dict[str, Credential] = {}
        self._candidates: dict[str, Candidate] = {}
        self._groups: dict[str, dict[str, Candidate]] = {}
        """Candidates that are enabled, by group and id. The group may be one that is not set up: see `tiers`."""
        self._home: dict[str, str] = {}
        """The group of each of them."""
        self._barred: dict[str, str] = {}
        """The groups of those whose secrets cannot be used. They are not chosen, but they are there."""
        self._secrets: dict[str, str] = {}
        self._tiers: dict[Groups, list[Groups]] = {}
        self._selectors: dict[tuple[Groups, str], Selector] = {}
        self._figures_matter = False
        self._affinity = False
        self._ends = BanEnds(self._home)
        self._soft: dict[str, dict[Field, Candidate]] = {}
        self._causes: dict[Field, str] = {}
        """Of credentials that are put aside."""
        self._bars = 0
        """How many credentials were found unusable since the last tick."""
        self._models: dict[str, None] = {}
        """Models that some credential has been used for with success, the latest last."""
        self.banned_models: Counter[str] = Counter()
        """How many bans there are for one model; where there are any, a choice depends on what a request is for."""
        self._group_causes: dict[str, Counter[str]] = {}
        self.bans = BanBook(Alone(), LookupError, now_s, self._ban_changed, self._ban_written)

    # ---- what is published ------------------------------------------------------------------------------------------

    def share(self, store: SharedBans, unavailable: type[Exception]) -> None:
        """Has bans written to a store that others read too. Credentials come from there as well (`complete`)."""
        self.complete = False
        self.bans = BanBook(store, unavailable, self.now_s, self._ban_changed, self._ban_written)
        self.bans.settings = self.settings

    def use(self, settings: Settings) -> None:
        """Takes settings; bans and figures stay."""
        before = self.settings
        if settings == before:
            return
        self.settings = self.bans.settings = settings
        self._figures_matter = settings.algorithm not in FIXED_ORDER
        self._affinity = self.wants_affinity
        self._tiers.clear()
        if (settings.algorithm, settings.window_s) != (before.algorithm, before.window_s):
            self._selectors.clear()

    def credentials_changed(self, changed: Iterable[Credential], gone: Iterable[str]) -> None:
        """Takes credentials that are new or other ones, and forgets those that are gone."""
        for name in gone:
            self._drop(name)
        for credential in changed:
            self._take(credential)

    def ban_changed(self, credential: str, model: str, ban: Ban | None) -> None:
        """Takes a ban that some worker has written."""
        self.bans.heard((credential, model), ban)

    # ---- for a request ----------------------------------------------------------------------------------------------

    @property
    def wants_affinity(self) -> bool:
        """Whether a choice depends on which conversation a request belongs to."""
        return self.settings.algorithm is Algorithm.CACHE_AFFINITY

    def has_keys(self, allowed: Groups) -> bool:
        """Tells whether there is any credential that a route may use, usable or not, or barred for its secret."""
        if any(self._groups.get(group) for groups in self.tiers(allowed) for group in groups):
            return True
        return any(not allowed or self._counts_as(group) in allowed for group in self._barred.values())

    def oauth(self) -> Candidate | None:
        """Returns the credential that the control plane refreshes, if there is one."""
        found = self._credentials.get(OAUTH_ID)
        return self._candidates[OAUTH_ID] if found is not None and found.enabled else None

    def tiers(self, allowed: Groups) -> list[Groups]:
        """Returns which groups are tried, in which order.

        Beside a group stand those that count as it, so that a change of groups moves no credential.
        """
        found = self._tiers.get(allowed)
        if found is None:
            used = sorted(group for group, members in self._groups.items() if members)
            order = tiers(self.settings.groups, self.settings, allowed, used)
            found = [tuple(group for group in used if self._counts_as(group) in tier) for tier in order]
            self._tiers[allowed] = found
        return found

    def _counts_as(self, group: str) -> str:
        return group_of(group, self.settings.groups)

    def pick_first(self, allowed: Groups, model: str, now_s: float) -> Candidate | None:
        """Returns the credential that is next; None where that is not all there is to be thought of.

        `model` may be ALL_MODELS unless there are `banned_models`.
        """
        if now_s >= self._ends.next_s or self._affinity:
            return None
        for groups in self._tiers.get(allowed, ()):
            found = self._selectors.get((groups, ALL_MODELS))
            if found is None:
                return None
            candidate = self._pick(groups, model, None, ()) if model else found.choose(now_s, self._random01, None)
            if candidate is not None:
                self._use(candidate, now_s)
                return candidate
        return None

    async def choose(
        self, allowed: Groups, model: str, affinity: bytes | None, tried: Collection[Candidate], trace: Trace
    ) -> Choice | None:
        """Returns the credential for the next attempt; None where none is left.

        Only a probe waits, for the store's word that no other worker has it.
        """
        order = self.tiers(allowed)
        self._ends.find_next()
        refused: set[str] = set()
        for groups in order:
            while (found := self._due(groups, model, tried, refused)) is not None:
                candidate, field = found
                if until_s := await self.bans.claim(field):
                    return self._chosen(Choice(candidate, field, until_s), groups, model, tried, trace, "probe")
                # It may stay due, such as while this worker is still writing what it found; and who is refused one of a
                # credential's bans may not try it by the other.
                refused.add(candidate.id)
            picked = self._pick(groups, model, affinity, tried)
            if picked is not None:
                return self._chosen(Choice(picked), groups, model, tried, trace, "selected")
            trace.looks.append(self._look(groups, model, tried))
        for groups in order:
            picked = self._softest(groups, model, tried)
            if picked is not None:
                return self._chosen(Choice(picked), groups, model, tried, trace, "last resort")
        return None

    def secret(self, candidate: Candidate) -> str | None:
        """Returns the secret of a credential, decrypted once; None where it cannot be, which is told, and bars it."""
        found = self._secrets.get(candidate.id)
        if found is None:
            credential = self._credentials.get(candidate.id)
            if credential is None:
                return None
            try:
                found = self._reveal(credential.secret, f"credential:{credential.id}")
            except Exception as error:
                self._bar(candidate, error)
                return None
            self._secrets[candidate.id] = found
        return found

    def shown(self, candidate: Candidate, place: Placement) -> Header | None:
        """Returns how a credential is shown to upstreams (`shown_as`), which it keeps; None where it cannot be."""
        secret = self.secret(candidate)
        if secret is None:
            return None
        try:
            candidate.shown = shown_as(place, secret)
        except ValueError as error:
            self._bar(candidate, error)
            return None
        return candidate.shown

    def report(self, choice: Choice, model: str, verdict: Verdict, status: int, began_s: float, now_s: float) -> None:
        """Takes what an attempt that began and ended then said of its credential."""
        candidate = choice.candidate
        if self._candidates.get(candidate.id) is not candidate:
            return  # it went while the request ran
        if not candidate.is_used:
            self.figures.use(candidate)
        if verdict.says is Says.SUCCESS:
            candidate.successes += 1
            self.know(model)
            if not len(self.bans):
                return
        elif verdict.says is not Says.NOTHING:
            self.figures.count_error(candidate, verdict.says, status, now_s)
        if not self.knows(model):
            # No credential was ever good for this model: the client may have made the name up.
            verdict = Verdict(Says.NOTHING) if verdict.says is Says.NOT_ENTITLED else verdict._replace(for_model=False)
        own = (candidate.id, scope(verdict, model))
        others = {(candidate.id, ALL_MODELS), (candidate.id, model), choice.probe or own} - {own}
        for field, said in ((own, verdict), *((other, elsewhere(verdict)) for other in others)):
            probe_until_s = choice.probe_until_s if field == choice.probe else 0.0
            self.bans.report(field, Report(said, Answered(now_s, began_s, status, probe_until_s)))

    def refused(self, candidate: Candidate, status: int) -> None:
        """Takes that an upstream refused the credential that the control plane refreshes, which is to know."""
        self.figures.count_error(candidate, Says.UNAUTHORIZED, status, self.now_s())

    def retry_after_s(self, allowed: Groups, model: str) -> float | None:
        """Returns in how many seconds the first credential comes back; None where none is banned."""
        now_s = self.now_s()
        ends = [
            end
            for groups in self.tiers(allowed)
            for group in groups
            for each in {ALL_MODELS, model}
            if (end := self._ends.first_s(group, each)) is not None
        ]
        return max(0.0, min(ends) - now_s) if ends else None

    def tick(self) -> None:
        """To be called once a second: lines of the log that were held back become a number.

        Selectors of tiers that are no more are forgotten.
        """
        self.bans.tick()
        if self._tiers:
            used = {groups for order in self._tiers.values() for groups in order}
            for key in [key for key in self._selectors if key[0] not in used]:
                del self._selectors[key]
        if self._bars > BARS_TOLD:
            log.error("credentials: %d further cannot be used", self._bars - BARS_TOLD)
        self._bars = 0

    # ---- choosing ---------------------------------------------------------------------------------------------------

    def _chosen(
        self, choice: Choice, groups: Groups, model: str, tried: Collection[Candidate], trace: Trace, how: str
    ) -> Choice:
        candidate = choice.candidate
        self._use(candidate, self.now_s())
        look = self._look(groups, model, tried)
        look.chosen, look.how = candidate.id, how
        trace.looks.append(look)
        return choice

    def _use(self, candidate: Candidate, now_s: float) -> None:
        candidate.requests += 1
        candidate.last_used_s = now_s
        if self._figures_matter:
            for each in self._selectors.values():
                if candidate in each:
                    each.changed(candidate)

    def _look(self, groups: Groups, model: str, tried: Collection[Candidate]) -> Look:
        total = sum(len(self._groups.get(group, ())) for group in groups)
        banned: dict[str, int] = {}
        if self._causes:
            for group in groups:
                for cause, count in self._group_causes.get(group, {}).items():
                    if count:
                        banned[cause] = banned.get(cause, 0) + count
        usable_now = len(self._selector(groups, model))
        return Look(groups, total, usable_now, len(tried), banned, passed_over=self._passed_over(groups, model))

    def _passed_over(self, groups: Groups, model: str) -> list[Over]:
        """Returns some of those that are put aside; not all are looked at."""
        found: list[Over] = []
        for field in islice(self._causes, LOOKED_AT_FOR_TRACE_MAX):
            ban = self.bans.get(field)
            if ban is not None and self._home.get(field[0]) in groups and field[1] in (ALL_MODELS, model):
                found.append(Over(*field, ban.cause, ban.until_s))
                if len(found) == PASSED_OVER_MAX:
                    break
        return found

    def _pick(
        self, groups: Groups, model: str, affinity: bytes | None, tried: Collection[Candidate]
    ) -> Candidate | None:
        chosen_by = self._selector(groups, model)
        aside = [candidate for candidate in tried if candidate in chosen_by]
        for candidate in aside:
            chosen_by.remove(candidate)
        try:
            for _ in range(REDRAWS_MAX):
                found = chosen_by.choose(self.now_s(), self._random01, affinity)
                if found is None or self._may(found, model):
                    return found
                chosen_by.remove(found)
                aside.append(found)
        finally:
            for candidate in aside:
                chosen_by.add(candidate)
        of_models = [key for key in self._selectors if key[1]]
        if len(of_models) >= MODEL_SELECTORS_MAX:
            del self._selectors[of_models[0]]
        self._selectors[groups, model] = self._filled(groups, model)
        return self._pick(groups, model, affinity, tried)

    def _selector(self, groups: Groups, model: str) -> Selector:
        """Returns the selector of a model where there is one, else that of all models."""
        found = self._selectors.get((groups, model))
        if found is None:
            found = self._selectors.get((groups, ALL_MODELS))
        if found is None:
            found = self._selectors[groups, ALL_MODELS] = self._filled(groups, ALL_MODELS)
        return found

    def _filled(self, groups: Groups, model: str) -> Selector:
        """Returns a new selector, for its place in `_selectors`. Of many candidates, most are added by and by.

        Each worker begins at another place, or all would begin with the same credential.
        """
        filled = selector(self.settings)
        members = list(self._members(groups))
        start = int(self._random01() * len(members))
        rest = chain(members[start:], members[:start])
        while self._fill(filled, groups, model, rest):
            if len(filled) >= FILLED_MIN:
                self._fill_later(filled, groups, model, rest)
                break
        return filled

    def _fill(self, filled: Selector, groups: Groups, model: str, rest: Iterator[Candidate]) -> bool:
        """Adds some of those that are still there and may be used; returns whether there are more."""
        some = list(islice(rest, FILL_SLICE))
        for candidate in some:
            there = self._candidates.get(candidate.id) is candidate and self._home.get(candidate.id) in groups
            if there and self._may(candidate, model):
                filled.add(candidate)
        return bool(some)

    def _fill_later(self, filled: Selector, groups: Groups, model: str, rest: Iterator[Candidate]) -> None:
        asyncio.get_running_loop().call_later(FILL_PAUSE_S, self._fill_on, filled, groups, model, rest)

    def _fill_on(self, filled: Selector, groups: Groups, model: str, rest: Iterator[Candidate]) -> None:
        """Goes on with a selector, unless another one is there in its place."""
        if self._selectors.get((groups, model)) is filled and self._fill(filled, groups, model, rest):
            self._fill_later(filled, groups, model, rest)

    def _members(self, groups: Groups) -> Iterator[Candidate]:
        for group in groups:
            yield from self._groups.get(group, {}).values()

    def _may(self, candidate: Candidate, model: str) -> bool:
        """Tells whether nothing keeps a credential from being used for a model."""
        bans = self.bans
        if not len(bans):
            return True
        if not usable(bans.get((candidate.id, ALL_MODELS))):
            return False
        return model == ALL_MODELS or usable(bans.get((candidate.id, model)))

    def _due(
        self, groups: Groups, model: str, tried: Collection[Candidate], refused: Collection[str]
    ) -> tuple[Candidate, Field] | None:
        """Returns a credential whose ban has ended, with the field of that."""
        now_s = self.now_s()
        for group in groups:
            members = self._groups.get(group, {})
            for each in (ALL_MODELS, model) if model else (ALL_MODELS,):
                for name in self._ends.due(group, each, now_s):
                    candidate = members.get(name)
                    field = (name, each)
                    if candidate is None or candidate in tried or name in refused:
                        continue
                    if not self._is_due(field, now_s):
                        continue
                    other = (name, model if each == ALL_MODELS else ALL_MODELS)
                    if other == field or usable(self.bans.get(other)) or self._is_due(other, now_s):
                        return candidate, field
        return None

    def _is_due(self, field: Field, now_s: float) -> bool:
        ban = self.bans.get(field)
        return ban is not None and due(ban, now_s)

    def _end_of(self, field: Field) -> float:
        """Returns when a credential may be tried for a model that it is banned for.

        While it is banned for all models, and for longer, those behind it in a heap are not to wait for that.
        """
        bans = (self.bans.get(field), self.bans.get((field[0], ALL_MODELS)))
        return max(end_s(ban) for ban in bans if ban is not None and not usable(ban))

    def _softest(self, groups: Groups, model: str, tried: Collection[Candidate]) -> Candidate | None:
        """Returns the credential that is put aside for the upstream's fault, and for the shortest time."""
        found: Candidate | None = None
        first_s = 0.0
        for group in groups:
            for (name, each), candidate in islice(self._soft.get(group, {}).items(), LOOKED_AT_MAX):
                if candidate in tried or each not in (ALL_MODELS, model):
                    continue
                bans = [self.bans.get((name, ALL_MODELS)), self.bans.get((name, model))]
                if any(ban is not None and not usable(ban) and not is_soft(ban) for ban in bans):
                    continue
                until_s = max(ban.until_s for ban in bans if ban is not None)
                if found is None or until_s < first_s:
                    found, first_s = candidate, until_s
        return found

    def _bar(self, candidate: Candidate, error: Exception) -> None:
        """Takes a credential out until it is published anew."""
        self._bars += 1
        if self._bars <= BARS_TOLD:
            log.error("credential %s is not used: %s", candidate.id, error)
        group = self._home.get(candidate.id)
        self._discard(candidate)
        if group is not None:
            self._barred[candidate.id] = group

    def knows(self, model: str) -> bool:
        """Tells whether some credential was good for a model."""
        return model in self._models

    def know(self, model: str) -> None:
        """Remembers that there is a model of this name."""
        if model and model not in self._models:
            self._models[model] = None
            if len(self._models) > MODELS_MAX:
                del self._models[next(iter(self._models))]

    # ---- what changes -----------------------------------------------------------------------------------------------

    def _take(self, credential: Credential) -> None:
        before = self._credentials.get(credential.id)
        candidate = self._candidates.get(credential.id)
        if candidate is None:
            candidate = self._candidates[credential.id] = Candidate(credential)
            self.figures.begin(candidate)
        home = self._home.get(credential.id)
        if before is not None:
            self._discard(candidate)
            if before.secret != credential.secret:
                self._secrets.pop(credential.id, None)
                candidate.shown = None
        self._barred.pop(credential.id, None)
        self._credentials[credential.id] = credential
        candidate.tokens_used, candidate.tokens_total = credential.tokens_used, credential.tokens_total
        if not credential.enabled or credential.kind is not Kind.KEY:
            return
        group = credential.group
        if group != home:
            for field in self.bans.of(credential.id):
                self._ends.forget(field)
        self._home[credential.id] = group
        members = self._groups.setdefault(group, {})
        if not members:
            self._tiers.clear()
        members[credential.id] = candidate
        for field in self.bans.of(credential.id):
            self._note_ban(group, candidate, field)
        self._place(candidate, group)

    def _drop(self, name: str) -> None:
        if self._credentials.pop(name, None) is None:
            return
        candidate = self._candidates.pop(name)
        self._barred.pop(name, None)
        self._discard(candidate)
        for field in self.bans.of(name):
            self._ends.forget(field)
        self.figures.forget(candidate)
        self._secrets.pop(name, None)
        self.bans.forget(name)

    def _discard(self, candidate: Candidate) -> None:
        """Takes a candidate out of its group, and out of all choices."""
        group = self._home.pop(candidate.id, None)
        if group is None:
            return
        members = self._groups[group]
        del members[candidate.id]
        if not members:
            self._tiers.clear()
        for field in self.bans.of(candidate.id):
            self._set_cause(group, field, None)
            self._soft.get(group, {}).pop(field, None)
        for (groups, _), each in self._selectors.items():
            if group in groups:
                each.remove(candidate)

    def _place(self, candidate: Candidate, group: str) -> None:
        """Puts a candidate into the selectors of its group, or takes it out, as its bans say."""
        for (groups, model), each in self._selectors.items():
            if group not in groups:
                continue
            if not self._may(candidate, model):
                each.remove(candidate)
            elif candidate not in each:
                each.add(candidate)

    def _ban_changed(self, field: Field) -> None:
        group = self._home.get(field[0])
        if group is not None:
            candidate = self._candidates[field[0]]
            self._note_ban(group, candidate, field)
            self._place(candidate, group)

    def _note_ban(self, group: str, candidate: Candidate, field: Field) -> None:
        ban = self.bans.get(field)
        if usable(ban):
            ban = None
        self._set_cause(group, field, ban)
        soft = self._soft.setdefault(group, {})
        soft.pop(field, None)
        if ban is not None:
            self._ends.note(group, field, self._end_of(field))
            if is_soft(ban):
                soft[field] = candidate
        else:
            self._ends.forget(field)
        if field[1] == ALL_MODELS:
            for other in self.bans.of(field[0]):
                if other[1] and not usable(self.bans.get(other)):
                    self._ends.note(group, other, self._end_of(other))

    def _set_cause(self, group: str, field: Field, ban: Ban | None) -> None:
        """Counts who is put aside, and why."""
        causes = self._group_causes.setdefault(group, Counter())
        before = self._causes.pop(field, None)
        if before is not None:
            causes[before] -= 1
            if field[1]:
                self.banned_models[field[1]] -= 1
                if not self.banned_models[field[1]]:
                    del self.banned_models[field[1]]
                    for key in [key for key in self._selectors if key[1] == field[1]]:
                        del self._selectors[key]
        if ban is not None:
            self._causes[field] = ban.cause
            causes[ban.cause] += 1
            if field[1]:
                self.banned_models[field[1]] += 1

    def _ban_written(self, field: Field, before: Ban | None, ban: Ban | None) -> None:  # noqa: ARG002
        self.figures.note(field, ban, self.now_s())


def end_s(ban: Ban) -> float:
    """Returns when a credential may be tried: at the end of its ban, or of the probe that is running."""
    return max(ban.until_s, ban.probe_until_s)
