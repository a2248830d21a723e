"""The backends of one upstream, as one worker sees them: which may get a request now, and which one does.

The law of this file: who has been given a backend (`take`, `wait`) gives it back, once, whatever became of the request;
so `running` is true at each moment. What decides is in `rules/` (`balancing.py`, `ejections.py`, `retry_budget.py`);
here it is told what happened. A group lives as long as its upstream has that name; an edit changes it in place.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from proxy.config import Backend, Balancer, Ejection, Upstream
from proxy.errors import BACKENDS_BUSY, NO_BACKEND, RelayError
from proxy.rules.balancing import Chooser, Member, chooser, observe
from proxy.rules.ejections import Ejections, slow_start_share
from proxy.rules.retry_budget import RetryBudget

log = logging.getLogger("relaygate")

FULL, EJECTED = "full", "ejected"


class Picker:
    """One balancer over the members of a group; routes of equal balancers share it, and so its turns."""

    __slots__ = ("balancer", "choose", "needs_address")

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.needs_address = balancer is Balancer.IP_HASH
        """Whether the client's address decides; others are not given any."""
        self.choose: Callable[[Sequence[Member], str], Member]

    def over(self, members: Sequence[Member]) -> None:
        """Begins anew over these members."""
        made: Chooser = chooser(self.balancer, members, random.random)
        self.choose = made.choose


class Waiter:
    """A request that waits for a backend to have room."""

    __slots__ = ("address", "future", "picker")

    def __init__(self, future: asyncio.Future[Member], picker: Picker, address: str) -> None:
        self.future = future
        self.picker = picker
        self.address = address


class Group:
    """The backends of one upstream. Times are of `perf_counter`."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.settings = Upstream()
        self.members: list[Member] = []
        self.usable: list[Member] = []
        """Those that may get a request now, in the order of the settings."""
        self.running = 0
        """Requests of this worker that have a backend."""
        self.observes = False
        """Whether anybody asks how fast backends are."""
        self._backends: dict[Member, Backend] = {}
        self._unhealthy: frozenset[str] = frozenset()
        self._since_s: dict[Member, float] = {}
        """When those came back that have not their whole share yet."""
        self._ejections = Ejections(Ejection())
        self._budget = RetryBudget(0.0)
        self._pickers: dict[Balancer, Picker] = {}
        self._loop = loop
        self._queue: deque[Waiter] = deque()

    # ---- for the configuration --------------------------------------------------------------------------------------

    def use(self, settings: Upstream) -> None:
        """Takes these settings. A backend of the same id and URL stays the member that it was, with what it has."""
        if settings == self.settings:
            return
        before = [(member, member.weight) for member in self.members]
        known = {(backend.id, backend.url): member for member, backend in self._backends.items()}
        backends: dict[Member, Backend] = {}
        for backend in settings.backends:
            member = known.get((backend.id, backend.url)) or Member(backend.id)
            member.weight, member.priority = backend.weight, backend.priority
            member.use_cap(backend.max_connections)
            backends[member] = backend
        self.settings = settings
        self._backends, self.members = backends, list(backends)
        self._ejections.use(settings.ejection, self.members)
        self._budget.share = settings.retry_share
        self._since_s = {member: since_s for member, since_s in self._since_s.items() if member in backends}
        if before != [(member, member.weight) for member in self.members]:
            for picker in self._pickers.values():
                picker.over(self.members)
        self.refresh()

    def backend(self, member: Member) -> Backend:
        """Returns the settings of a member. Raises KeyError for one that is no more."""
        return self._backends[member]

    def picker(self, balancer: Balancer) -> Picker:
        """Returns what chooses as this balancer does."""
        picker = self._pickers.get(balancer)
        if picker is None:
            picker = self._pickers[balancer] = Picker(balancer)
            picker.over(self.members)
            self.observes = self.observes or balancer is Balancer.LEAST_LATENCY
        return picker

    def use_states(self, unhealthy: frozenset[str], utils: Mapping[str, float]) -> None:
        """Takes which backends are not well, and how busy those are that tell it, by id."""
        for member in self.members:
            member.util = utils.get(member.id, 0.0)
        if unhealthy != self._unhealthy:
            for member in self.members:
                if member.id in self._unhealthy and member.id not in unhealthy:
                    self._ejections.lift(member, perf_counter())  # it has been asked since it failed here
                    self._came_back(member)
            self._unhealthy = unhealthy
            self.refresh()

    def use_elsewhere(self, running: Mapping[str, tuple[int, int]]) -> None:
        """Takes how many requests each backend has from other workers, and from how many of these, by id."""
        for member in self.members:
            elsewhere, others = running.get(member.id, (0, 0))
            member.use_elsewhere(elsewhere, 1 + others)
        self.refresh()

    # ---- for requests -----------------------------------------------------------------------------------------------

    def take(self, picker: Picker, address: str, tried: Sequence[Member] = ()) -> Member | None:
        """Returns a backend for a request, or None where none may get it now; hand it back with `give_back`."""
        if tried:
            return self._take_another(picker, address, tried)
        if self._budget.owed:
            self._budget.request()
        usable = self.usable
        if not usable:
            return None
        member = picker.choose(usable, address) if len(usable) > 1 else usable[0]
        member.running = running = member.running + 1
        self.running += 1
        if running >= member.most:
            self.refresh()
        return member

    async def wait(self, picker: Picker, address: str) -> Member:
        """Waits until a backend has room. Raises RelayError where none is there to wait for, or too many wait."""
        if not any(map(self._may_be_used, self.members)):
            raise RelayError(NO_BACKEND)
        if len(self._queue) >= self.settings.queue_max:
            raise RelayError(BACKENDS_BUSY)
        waiter = Waiter(self._loop.create_future(), picker, address)
        self._queue.append(waiter)
        timer = self._loop.call_later(self.settings.queue_wait_s, give_up, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                self._queue.remove(waiter)

    def give_back(self, member: Member) -> None:
        """Ends a use of a backend."""
        running = member.running
        member.running = running - 1
        self.running -= 1
        if running >= member.most:
            self.refresh()

    def failed(self, member: Member, began_s: float) -> None:
        """Takes that a backend failed a request: no connection, no answer, or one that says so."""
        if member in self._backends and self._ejections.failed(member, perf_counter(), began_s):
            log.warning("backend %s of upstream %s is left alone: it keeps failing", member.id, self.name)
            self.refresh()

    def succeeded(self, member: Member, began_s: float) -> None:
        """Takes that a backend answered a request that began at `began_s`."""
        if member.failures:
            self._ejections.succeeded(member)
        if self.observes:
            now_s = perf_counter()
            observe(member, now_s - began_s, now_s)

    def may_retry(self) -> bool:
        """Tells whether one more request may go out again that a backend has had, and counts it."""
        return self._budget.take(self.running)

    def has_another(self, tried: Sequence[Member]) -> bool:
        """Tells whether a backend may get a request now that has not had it."""
        return any(member not in tried for member in self.usable)

    def hindrances(self, tried: Sequence[Member] = ()) -> dict[str, int]:
        """Returns why backends may not get a request now, and of how many that is so; for who asks why."""
        found: Counter[str] = Counter()
        for member in self.members:
            if member not in tried and not member.usable:
                found[self._hindrance(member) or "priority"] += 1
        return dict(found)

    # ---- for the worker ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Lets those back whose time has come. Called ten times a second."""
        now_s = perf_counter()
        for member in self._ejections.due(now_s):
            log.info("backend %s of upstream %s is tried again", member.id, self.name)
            self._came_back(member)
            self.refresh()
        for member, since_s in list(self._since_s.items()):
            member.share = slow_start_share(since_s, now_s, self.settings.slow_start_s)
            if member.share >= 1:
                del self._since_s[member]

    def refresh(self) -> None:
        """Finds out anew who may get a request, and gives room to those who wait for it.

        Where all others are unhealthy or not to be used, those that are ejected may get it: the cap on ejections counts
        them alone.
        """
        hindrances = {member: self._hindrance(member) for member in self.members}
        able = [member for member, why in hindrances.items() if why is None]
        if not able and FULL not in hindrances.values():
            # Better one that may have recovered than none.
            able = [member for member, why in hindrances.items() if why == EJECTED and not member.full]
        if able:
            lowest = min(member.priority for member in able)
            able = [member for member in able if member.priority == lowest]
        for member in self.members:
            member.usable = False
        for member in able:
            member.usable = True
        self.usable = able
        while self._queue and self.usable:
            waiter = self._queue.popleft()
            if not waiter.future.done():
                usable = self.usable
                member = waiter.picker.choose(usable, waiter.address) if len(usable) > 1 else usable[0]
                waiter.future.set_result(member)
                self._give(member)

    def _give(self, member: Member) -> None:
        member.running += 1
        self.running += 1
        if member.running >= member.most:
            self.refresh()

    def _take_another(self, picker: Picker, address: str, tried: Sequence[Member]) -> Member | None:
        """A backend that has not had the request. Some balancers ask members themselves whether they may be used."""
        before = [member for member in tried if member.usable]
        for member in before:
            member.usable = False
        usable = [member for member in self.usable if member.usable]
        chosen = picker.choose(usable, address) if usable else None
        for member in before:
            member.usable = True
        if chosen is not None:
            self._give(chosen)
        return chosen

    def _may_be_used(self, member: Member) -> bool:
        """Whether a backend would get requests if it had room."""
        return self._hindrance(member) in (None, FULL)

    def _hindrance(self, member: Member) -> str | None:
        """What speaks against giving a request to a backend."""
        backend = self._backends[member]
        if not backend.active:
            return "inactive"
        if backend.draining:
            return "draining"
        if member.id in self._unhealthy:
            return "unhealthy"
        if self._ejections.is_ejected(member):
            return EJECTED
        return FULL if member.full else None

    def _came_back(self, member: Member) -> None:
        if self.settings.slow_start_s:
            self._since_s[member] = now_s = perf_counter()
            member.share = slow_start_share(now_s, now_s, self.settings.slow_start_s)


def give_up(waiter: Waiter) -> None:
    """Ends a wait that has lasted too long."""
    if not waiter.future.done():
        waiter.future.set_exception(RelayError(BACKENDS_BUSY))
