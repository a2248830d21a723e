"""When a credential is put aside, for how long, and how it comes back. Pure: one ban and one verdict in, a ban out.

The laws:
- NOTHING, a client's fault, bans nobody, lengthens no ban and counts for nothing; nor does FORBIDDEN, which may be one.
- Every ban ends. Then one request, the probe, tries the credential: success lifts the ban, the same fault again bans
  for twice as long, anything else leaves it due.
- Only news changes a ban. A success is news if its request was the probe, or began after the ban had ended (a soft one:
  had begun). A fault is another strike if its request was the probe, or began after the end while nobody probed. An
  answer that comes late neither lifts a ban, nor shortens it, nor counts as a strike; it can only say that things are
  worse, or that the upstream wants a longer rest.

A credential has a ban for all models and one for each model that needs one. `verdicts` says what an answer is for each.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from proxy.config import KeyPool
from proxy.rules.credentials import ALL_MODELS, SOFT, Ban, BanCause, Says, Verdict
from proxy.rules.waits import WAIT_S_MAX

STRIKES_MAX = 20
"""Beyond, a ban is as long as it can be anyway."""
OVERLOAD_S_MAX = 60.0
"""The longest soft ban for a fault of the upstream's own: it holds for every credential, and passes."""
LENGTHENS_S = 1.0
"""A late answer that asks for less than this beyond a ban's end is not worth a write for all workers."""

LEADS_TO: Mapping[Says, BanCause] = {
    Says.RATE_LIMITED: BanCause.RATE_LIMITED,
    Says.OUT_OF_QUOTA: BanCause.OUT_OF_QUOTA,
    Says.UNAUTHORIZED: BanCause.DEAD,
    Says.DEAD: BanCause.DEAD,
    Says.NOT_ENTITLED: BanCause.NOT_ENTITLED,
    Says.OVERLOADED: BanCause.OVERLOADED,
    Says.FAILED: BanCause.FAILING,
}
BANS_NOBODY = frozenset((Says.NOTHING, Says.FORBIDDEN))
GRAVITY = (
    BanCause.FAILING,
    BanCause.OVERLOADED,
    BanCause.RATE_LIMITED,
    BanCause.NOT_ENTITLED,
    BanCause.OUT_OF_QUOTA,
    BanCause.DEAD,
)
"""What a late answer may put in the place of what: only the graver."""
UPSTREAMS_OWN = frozenset((BanCause.OVERLOADED, BanCause.FAILING))
ASKED_FOR = frozenset((BanCause.OVERLOADED, BanCause.RATE_LIMITED))
"""What is heeded even where credentials are not banned automatically: the upstream asks for a rest."""


class Answered(NamedTuple):
    """A request that ended at `now_s` and began at `began_s`. `status` is the answer's, 0 where there was none.

    `probe_until_s` is that of the ban by which the request was granted the probe, else 0.
    """

    now_s: float
    began_s: float
    status: int = 0
    probe_until_s: float = 0.0


def usable(ban: Ban | None) -> bool:
    """Tells whether a credential with this ban may be used by any request."""
    return ban is None or ban.cause is BanCause.COUNTING


def is_soft(ban: Ban) -> bool:
    """Tells whether it may be used, before the ban's end, where nothing else is left."""
    return ban.cause in SOFT


def due(ban: Ban, now_s: float) -> bool:
    """Tells whether the ban has ended and nobody is trying the credential: a probe may be granted."""
    return ban.cause is not BanCause.COUNTING and ban.until_s <= now_s and ban.probe_until_s <= now_s


def with_probe(ban: Ban, now_s: float, lease_s: float) -> Ban:
    """Returns a ban that is due with its probe granted, for `lease_s` at most; whoever stores it first has the probe.

    A probe that has not ended by then (its worker died) is nobody's any more, and the ban is due again.
    """
    return replace(ban, probe_until_s=now_s + lease_s)


def forgotten(ban: Ban, now_s: float, settings: KeyPool) -> bool:
    """Tells whether a ban ended so long ago that it says nothing any more and may be deleted.

    Nobody probes a model that nobody asks for again; without this its ban would stay for ever.
    """
    if ban.cause is BanCause.COUNTING:
        return ban.until_s < now_s
    return max(ban.until_s, ban.probe_until_s) + settings.ban_max_s < now_s


def scope(verdict: Verdict, model: str) -> str:
    """Returns the model whose ban a verdict belongs to, or ALL_MODELS."""
    return model if verdict.for_model and model else ALL_MODELS


def elsewhere(verdict: Verdict) -> Verdict:
    """Returns what a verdict is for the other ban that its request was subject to.

    A success is one for both. Anything else only ends a probe there.
    """
    return verdict if verdict.says is Says.SUCCESS else Verdict(Says.NOTHING)


def verdicts(verdict: Verdict, model: str) -> dict[str, Verdict]:
    """Returns what an answer is for the ban of its request's model (`""` unknown) and for that of all models.

    That some model is not to be had, when it is not known which, says nothing of the credential.
    """
    if verdict.says is Says.NOT_ENTITLED and not model:
        verdict = Verdict(Says.NOTHING)
    own = scope(verdict, model)
    return {name: verdict if name == own else elsewhere(verdict) for name in (ALL_MODELS, model)}


def after(ban: Ban | None, verdict: Verdict, answered: Answered, settings: KeyPool) -> Ban | None:
    """Returns the ban after an answer: the very same object where nothing changes, None where there is none any more.

    `ban` is what is stored at this moment, not what was when the request began.
    """
    if verdict.says is Says.SUCCESS:
        return None if ban is None or is_news(ban, answered) else ban
    if verdict.says in BANS_NOBODY:
        return freed(ban, answered)
    if not heeded(verdict, settings):
        return None if ban is not None and after_end(ban, answered) else ban
    if ban is None or ban.cause is BanCause.COUNTING:
        return counted(ban, verdict, answered, settings)
    if is_probe(ban, answered) or (answered.began_s >= ban.until_s and ban.probe_until_s <= answered.now_s):
        return tried_again(ban, verdict, answered, settings)
    return meanwhile(ban, verdict, answered, settings)


def heeded(verdict: Verdict, settings: KeyPool) -> bool:
    """Tells whether a fault may ban at all under these settings."""
    return settings.auto_ban_enabled or LEADS_TO[verdict.says] in ASKED_FOR


def is_probe(ban: Ban, answered: Answered) -> bool:
    """Tells whether the answer is that of the running probe."""
    return answered.probe_until_s != 0 and answered.probe_until_s == ban.probe_until_s


def after_end(ban: Ban, answered: Answered) -> bool:
    """Tells whether the request was the probe, or one that began after the ban had ended."""
    if ban.cause is BanCause.COUNTING:
        return False
    return is_probe(ban, answered) or answered.began_s >= ban.until_s


def is_news(ban: Ban, answered: Answered) -> bool:
    """Tells whether the request's success says that the reason for the ban is gone.

    A hard ban forbids requests, so one that began within it began in ignorance; a rate limit may well let one through.
    """
    if ban.cause is BanCause.COUNTING or after_end(ban, answered):
        return True
    return is_soft(ban) and answered.began_s >= ban.since_s


def freed(ban: Ban | None, answered: Answered) -> Ban | None:
    """Returns the ban with its probe ended without a result: it stays due, for the next request to try."""
    return replace(ban, probe_until_s=0.0) if ban is not None and is_probe(ban, answered) else ban


def counted(ban: Ban | None, verdict: Verdict, answered: Answered, settings: KeyPool) -> Ban:
    """Returns what a fault makes of a usable credential: a ban at once, or once enough of its kind came in a row.

    A fault of the upstream's and one of the key's do not make a row together: a few errors 500 and then one 401 must
    not ban a key as dead.
    """
    failures = 1
    if ban is not None and goes_on(ban, verdict, answered, settings):
        failures = ban.failures + 1
    if at_once(verdict, settings) or failures >= settings.error_threshold:
        return banned(verdict, answered, settings, 0, failures)
    since_s = ban.since_s if ban is not None and failures > 1 else answered.now_s
    last_s = max(answered.now_s, ban.last_failure_s if ban is not None and failures > 1 else 0.0)
    until_s = last_s + settings.error_window_s
    return Ban(BanCause.COUNTING, since_s, until_s, failures, last_s, status=answered.status)


def goes_on(ban: Ban, verdict: Verdict, answered: Answered, settings: KeyPool) -> bool:
    """Tells whether a failure belongs to the row that is being counted."""
    keys_own = 400 <= ban.status < 500
    return answered.now_s - ban.last_failure_s <= settings.error_window_s and keys_own is not (
        LEADS_TO[verdict.says] in UPSTREAMS_OWN
    )


def at_once(verdict: Verdict, settings: KeyPool) -> bool:
    """Tells whether a single answer bans."""
    match verdict.says:
        case Says.FAILED:
            return False
        case Says.UNAUTHORIZED:
            return settings.ban_401
        case Says.OUT_OF_QUOTA:
            return settings.ban_402
        case _:
            return True


def tried_again(ban: Ban, verdict: Verdict, answered: Answered, settings: KeyPool) -> Ban:
    """Returns what a fault makes of a ban that has ended. One is enough: the credential was not proved good."""
    cause = LEADS_TO[verdict.says]
    if cause in UPSTREAMS_OWN and ban.cause not in UPSTREAMS_OWN:
        # Nothing was learned of the key, which is tried again after a pause.
        return replace(ban, until_s=answered.now_s + length_s(verdict, settings, 0), probe_until_s=0.0)
    same = cause is ban.cause or (cause in UPSTREAMS_OWN and ban.cause in UPSTREAMS_OWN)
    return banned(verdict, answered, settings, ban.strikes if same else 0, ban.failures + 1 if same else 1)


def meanwhile(ban: Ban, verdict: Verdict, answered: Answered, settings: KeyPool) -> Ban:
    """Returns what an answer makes of a ban that began, or has not ended, since its request went out."""
    cause = LEADS_TO[verdict.says]
    if GRAVITY.index(cause) > GRAVITY.index(ban.cause) and at_once(verdict, settings):
        graver = banned(verdict, answered, settings, 0, ban.failures)
        # The probe goes on, and with it whoever waits for its lease.
        return replace(graver, until_s=max(graver.until_s, ban.until_s), probe_until_s=ban.probe_until_s)
    if cause is ban.cause and verdict.wait_s is not None:
        until_s = answered.now_s + length_s(verdict, settings, 0)
        return ban if until_s < ban.until_s + LENGTHENS_S else replace(ban, until_s=until_s)
    return ban


def banned(verdict: Verdict, answered: Answered, settings: KeyPool, strikes: int, failures: int) -> Ban:
    """Returns a new ban, after `strikes` of its kind in a row."""
    return Ban(
        cause=LEADS_TO[verdict.says],
        since_s=answered.now_s,
        until_s=answered.now_s + length_s(verdict, settings, strikes),
        failures=failures,
        last_failure_s=answered.now_s,
        strikes=min(strikes + 1, STRIKES_MAX),
        status=answered.status,
    )


def length_s(verdict: Verdict, settings: KeyPool, strikes: int) -> float:
    """Returns how long a ban lasts: as long as the upstream asked for, else twice as long after each strike."""
    cause = LEADS_TO[verdict.says]
    doublings = 2.0 ** min(strikes, STRIKES_MAX)
    if cause in UPSTREAMS_OWN:
        most_s = max(OVERLOAD_S_MAX, settings.overload_s)
        return min(verdict.wait_s or settings.overload_s * doublings, most_s)
    if cause in (BanCause.RATE_LIMITED, BanCause.OUT_OF_QUOTA) and verdict.wait_s:
        return min(verdict.wait_s, WAIT_S_MAX)
    first_s = settings.rate_limit_s if cause is BanCause.RATE_LIMITED else settings.ban_s
    return min(first_s * doublings, max(settings.ban_max_s, first_s))
