"""The ban machine under all that workers can do to it: stale knowledge, races for one store, late and lost answers.

Workers know what the store had when they last heard of it. They write by compare-and-set, decide again where somebody
was faster, three times at most, and then leave it. Time only goes on between steps.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from proxy.config import KeyPool
from proxy.rules.bans import (
    ASKED_FOR,
    BANS_NOBODY,
    GRAVITY,
    STRIKES_MAX,
    Answered,
    after,
    due,
    is_soft,
    usable,
    with_probe,
)
from proxy.rules.credentials import Ban, BanCause, Says, Verdict
from proxy.rules.waits import WAIT_S_MAX

LEASE_S = 30.0
ATTEMPTS = 3
STATUSES = {Says.SUCCESS: 200, Says.UNAUTHORIZED: 401, Says.OUT_OF_QUOTA: 402, Says.FAILED: 500}


@dataclass(eq=False)
class Request:
    worker: int
    began_s: float
    probe_until_s: float = 0.0


@dataclass
class World:
    """One credential, the store that has its ban, and workers that know of it what they have heard."""

    settings: KeyPool
    now_s: float = 1_000_000.0
    stored: Ban | None = None
    known: list[Ban | None] = field(default_factory=lambda: [None] * 2)
    running: list[Request] = field(default_factory=list)

    def write(self, worker: int, expected: Ban | None, ban: Ban | None) -> bool:
        """Compare and set; whoever fails has learned what is stored."""
        won = self.stored == expected
        if won:
            self.stored = ban
        self.known[worker] = self.stored
        return won

    def answer(self, request: Request, verdict: Verdict) -> None:
        answered = Answered(self.now_s, request.began_s, STATUSES.get(verdict.says, 429), request.probe_until_s)
        for _ in range(ATTEMPTS):
            known = self.known[request.worker]
            ban = after(known, verdict, answered, self.settings)
            if ban is known or self.write(request.worker, known, ban):
                return

    def probes(self) -> list[Request]:
        """Those that still have their lease."""
        return [request for request in self.running if request.probe_until_s > self.now_s]


workers = st.integers(0, 1)
places = st.integers(0, 1000)
faults = st.builds(
    Verdict,
    st.sampled_from([says for says in Says if says not in (Says.SUCCESS, *BANS_NOBODY)]),
    st.none() | st.sampled_from([0.02, 34.0, 200_000.0]),
)


class Bans(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(KeyPool())
        self.faults = 0

    @initialize(
        threshold=st.integers(1, 3),
        ban_401=st.booleans(),
        ban_402=st.booleans(),
        auto=st.sampled_from([True, True, True, False]),
    )
    def begin(self, threshold: int, ban_401: bool, ban_402: bool, auto: bool) -> None:  # noqa: FBT001 - drawn
        self.world.settings = KeyPool(
            error_threshold=threshold, ban_401=ban_401, ban_402=ban_402, auto_ban_enabled=auto
        )

    @rule(seconds=st.sampled_from([0.05, 1.0, 6.0, 31.0, 61.0, 3601.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now_s += seconds

    @precondition(lambda self: self.world.stored is not None and not usable(self.world.stored))
    @rule(worker=workers)
    def probe_at_the_end(self, worker: int) -> None:
        assert self.world.stored is not None
        self.world.now_s = max(self.world.now_s, self.world.stored.until_s)
        self.hear(worker)
        self.probe(worker)

    @rule(worker=workers)
    def hear(self, worker: int) -> None:
        self.world.known[worker] = self.world.stored

    @rule(worker=workers, count=st.integers(1, 4))
    def send(self, worker: int, count: int) -> None:
        known = self.world.known[worker]
        if known is None or usable(known) or is_soft(known):
            self.world.running += [Request(worker, self.world.now_s) for _ in range(count)]

    @precondition(lambda self: any(known is not None and due(known, self.world.now_s) for known in self.world.known))
    @rule(worker=workers)
    def probe(self, worker: int) -> None:
        known = self.world.known[worker]
        if known is None or not due(known, self.world.now_s):
            return
        probing = with_probe(known, self.world.now_s, LEASE_S)
        others = self.world.probes()
        if self.world.write(worker, known, probing):
            assert others == [], "two probes at a time"
            self.world.running.append(Request(worker, self.world.now_s, probing.probe_until_s))

    @precondition(lambda self: self.world.running)
    @rule(place=places, verdict=faults)
    def answer_with_a_fault(self, place: int, verdict: Verdict) -> None:
        request, before = self.end(place), self.world.stored
        self.faults += 1
        self.world.answer(request, verdict)
        stored = self.world.stored
        if before is None or usable(before):
            return
        if before.probe_until_s == request.probe_until_s != 0:
            assert stored is None or not due(stored, self.world.now_s), "a failed probe left its ban due"
        if stored is before:
            return
        if not (before.probe_until_s == request.probe_until_s != 0 or request.began_s >= before.until_s):
            assert stored is not None, "a late fault lifted a ban"
            assert stored.until_s >= before.until_s, "a late fault shortened a ban"
            assert stored.strikes <= before.strikes, "a late fault was another strike"
            assert GRAVITY.index(stored.cause) >= GRAVITY.index(before.cause), "a late fault made things better"
        if stored is not None:
            assert stored.strikes <= before.strikes + 1

    @precondition(lambda self: self.world.running)
    @rule(place=places)
    def answer_with_success(self, place: int) -> None:
        request, before = self.end(place), self.world.stored
        self.world.answer(request, Verdict(Says.SUCCESS))
        probed = before is not None and before.probe_until_s == request.probe_until_s != 0
        hard = before is not None and not usable(before) and not is_soft(before)
        if before is not None and hard and not probed and request.began_s < before.until_s:
            assert self.world.stored is before, "a late success lifted a hard ban"
        if probed and self.world.known[request.worker] == self.world.stored:
            assert self.world.stored is None, "a successful probe left a ban"

    @precondition(lambda self: self.world.running)
    @rule(place=places, says=st.sampled_from(sorted(BANS_NOBODY)))
    def answer_with_a_clients_fault(self, place: int, says: Says) -> None:
        request, before = self.end(place), self.world.stored
        self.world.answer(request, Verdict(says))
        stored = self.world.stored
        if stored is not before:
            assert before is not None
            assert stored == replace(before, probe_until_s=0.0), "a client's fault did more than end its probe"
            assert before.probe_until_s == request.probe_until_s
        if before is not None and before.probe_until_s == request.probe_until_s != 0:
            assert stored is not None
            assert stored.probe_until_s == 0, "a spoiled probe was not given back"

    @precondition(lambda self: self.world.running)
    @rule(place=places)
    def lose(self, place: int) -> None:
        """The worker died, or never heard the answer."""
        self.end(place)

    def end(self, place: int) -> Request:
        return self.world.running.pop(place % len(self.world.running))

    @invariant()
    def no_client_bans(self) -> None:
        assert self.faults or self.world.stored is None

    @invariant()
    def every_ban_ends(self) -> None:
        ban, settings_, now_s = self.world.stored, self.world.settings, self.world.now_s
        if ban is not None:
            assert ban.until_s <= now_s + max(settings_.ban_max_s, WAIT_S_MAX)
            assert ban.probe_until_s <= now_s + LEASE_S
            assert 0 <= ban.strikes <= STRIKES_MAX
            assert ban.since_s <= now_s

    @invariant()
    def only_what_may_ban_does(self) -> None:
        ban, settings_ = self.world.stored, self.world.settings
        if ban is not None and not settings_.auto_ban_enabled:
            assert ban.cause in ASKED_FOR
        if ban is not None and ban.cause is BanCause.COUNTING:
            assert ban.failures < settings_.error_threshold

    @invariant()
    def a_good_key_comes_back_with_its_bans_end_and_one_success(self) -> None:
        ban = self.world.stored
        if ban is None or usable(ban):
            return
        at_s = max(self.world.now_s, ban.until_s, ban.probe_until_s)
        assert due(ban, at_s)
        probing = with_probe(ban, at_s, LEASE_S)
        answered = Answered(at_s + 1, at_s, 200, probing.probe_until_s)
        assert after(probing, Verdict(Says.SUCCESS), answered, self.world.settings) is None


Bans.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestBans = Bans.TestCase
