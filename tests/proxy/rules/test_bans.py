"""The ban machine, one step at a time. `test_bans_model.py` has workers race over it."""

import msgspec
import pytest
from msgspec.structs import replace

from proxy.config import KeyPool
from proxy.rules.bans import (
    OVERLOAD_S_MAX,
    STRIKES_MAX,
    Answered,
    after,
    due,
    elsewhere,
    forgotten,
    is_soft,
    scope,
    usable,
    verdicts,
    with_probe,
)
from proxy.rules.credentials import ALL_MODELS, Ban, BanCause, Says, Verdict
from proxy.rules.waits import WAIT_S_MAX

NOW_S = 1_000_000.0
SETTINGS = KeyPool()
STRICT = KeyPool(ban_401=True)
LENIENT = KeyPool(ban_402=False)
MANUAL = KeyPool(auto_ban_enabled=False)
FAULTS = [says for says in Says if says not in (Says.SUCCESS, Says.NOTHING, Says.FORBIDDEN)]
COUNTED = [Says.FAILED, Says.UNAUTHORIZED]


def told(
    says: Says,
    ban: Ban | None = None,
    *,
    at_s: float = NOW_S,
    wait_s: float | None = None,
    settings: KeyPool = SETTINGS,
) -> Ban | None:
    """The ban after an answer to a request that went out just before."""
    return after(ban, Verdict(says, wait_s), Answered(at_s, at_s - 0.1, status_of(says)), settings)


def status_of(says: Says) -> int:
    return {Says.UNAUTHORIZED: 401, Says.FORBIDDEN: 403, Says.OUT_OF_QUOTA: 402, Says.FAILED: 500}.get(says, 429)


def banned(says: Says, *, wait_s: float | None = None, settings: KeyPool = STRICT) -> Ban:
    """The ban after as many such answers in a row as it takes."""
    ban: Ban | None = None
    for _ in range(settings.error_threshold):
        ban = told(says, ban, wait_s=wait_s, settings=settings)
    assert ban is not None
    assert not usable(ban)
    return ban


def probed(ban: Ban, says: Says, *, wait_s: float | None = None, settings: KeyPool = STRICT) -> Ban | None:
    """The ban after it ended, a probe was granted, and answered half a second later."""
    at_s = ban.until_s
    assert due(ban, at_s)
    probing = with_probe(ban, at_s, 30)
    assert not due(probing, at_s)
    return after(
        probing, Verdict(says, wait_s), Answered(at_s + 0.5, at_s, status_of(says), probing.probe_until_s), settings
    )


@pytest.mark.parametrize(
    ("says", "settings", "cause", "length_s"),
    [
        (Says.RATE_LIMITED, SETTINGS, BanCause.RATE_LIMITED, 30),
        (Says.OUT_OF_QUOTA, SETTINGS, BanCause.OUT_OF_QUOTA, 3600),
        (Says.DEAD, SETTINGS, BanCause.DEAD, 3600),
        (Says.UNAUTHORIZED, STRICT, BanCause.DEAD, 3600),
        (Says.NOT_ENTITLED, SETTINGS, BanCause.NOT_ENTITLED, 3600),
        (Says.OVERLOADED, SETTINGS, BanCause.OVERLOADED, 5),
        (Says.RATE_LIMITED, MANUAL, BanCause.RATE_LIMITED, 30),
        (Says.OVERLOADED, MANUAL, BanCause.OVERLOADED, 5),
    ],
)
def test_some_answers_ban_at_once(says: Says, settings: KeyPool, cause: BanCause, length_s: float) -> None:
    ban = told(says, settings=settings)
    assert ban == Ban(cause, NOW_S, NOW_S + length_s, 1, NOW_S, 1, status=status_of(says))


@pytest.mark.parametrize(
    ("says", "settings", "cause"),
    [
        (Says.FAILED, SETTINGS, BanCause.FAILING),
        (Says.UNAUTHORIZED, SETTINGS, BanCause.DEAD),
        (Says.OUT_OF_QUOTA, LENIENT, BanCause.OUT_OF_QUOTA),
    ],
)
def test_others_ban_once_there_were_enough_in_a_row(says: Says, settings: KeyPool, cause: BanCause) -> None:
    ban = None
    for failures in range(1, settings.error_threshold):
        ban = told(says, ban, at_s=NOW_S + failures, settings=settings)
        assert ban is not None
        assert usable(ban)
        assert (ban.cause, ban.failures, ban.since_s) == (BanCause.COUNTING, failures, NOW_S + 1)
        assert ban.until_s == NOW_S + failures + settings.error_window_s
        assert not due(ban, NOW_S + 1e9)
    ban = told(says, ban, at_s=NOW_S + 9, settings=settings)
    assert ban is not None
    assert (ban.cause, ban.failures, ban.strikes, ban.since_s) == (cause, settings.error_threshold, 1, NOW_S + 9)


def test_a_row_is_broken_by_a_success_a_pause_and_a_failure_of_the_other_side() -> None:
    four = None
    for _ in range(4):
        four = told(Says.FAILED, four)
    assert four is not None
    assert told(Says.SUCCESS, four) is None
    late = told(Says.FAILED, four, at_s=NOW_S + SETTINGS.error_window_s + 0.1)
    assert late is not None
    assert late.failures == 1
    other = told(Says.UNAUTHORIZED, four)
    assert other is not None
    assert (other.failures, usable(other)) == (1, True)
    row = told(Says.UNAUTHORIZED, other)
    assert row is not None
    assert row.failures == 2


def test_a_credential_that_is_being_counted_is_reset_even_by_a_slow_success() -> None:
    counting = told(Says.FAILED)
    assert after(counting, Verdict(Says.SUCCESS), Answered(NOW_S + 1, NOW_S - 60, 200), SETTINGS) is None


@pytest.mark.parametrize("nothing", [Says.NOTHING, Says.FORBIDDEN])
@pytest.mark.parametrize("says", [*FAULTS])
def test_a_clients_fault_and_what_may_be_one_change_nothing_whatever_the_state(says: Says, nothing: Says) -> None:
    assert told(nothing) is None
    ban = told(says)
    assert told(nothing, ban) is ban
    assert told(nothing, ban, at_s=NOW_S + 1e9) is ban


@pytest.mark.parametrize("says", [says for says in FAULTS if says not in (Says.RATE_LIMITED, Says.OVERLOADED)])
def test_without_automatic_bans_only_what_the_upstream_asks_for_is_heeded(says: Says) -> None:
    assert told(says, settings=MANUAL) is None
    ban = banned(says)
    assert told(says, ban, settings=MANUAL) is ban
    assert probed(ban, says, settings=MANUAL) is None


@pytest.mark.parametrize(
    ("says", "wait_s", "length_s"),
    [
        (Says.RATE_LIMITED, 0.02, 0.02),
        (Says.RATE_LIMITED, 200_000, 200_000),
        (Says.RATE_LIMITED, 1e30, WAIT_S_MAX),
        (Says.OUT_OF_QUOTA, 35_200, 35_200),
        (Says.OVERLOADED, 2, 2),
        (Says.OVERLOADED, 86_400, OVERLOAD_S_MAX),
        (Says.FAILED, 86_400, OVERLOAD_S_MAX),
        (Says.DEAD, 1, 3600),
        (Says.NOT_ENTITLED, 1, 3600),
    ],
)
def test_a_ban_lasts_as_long_as_the_upstream_asks(says: Says, wait_s: float, length_s: float) -> None:
    assert banned(says, wait_s=wait_s).until_s == NOW_S + length_s


@pytest.mark.parametrize("says", FAULTS)
def test_each_ban_in_a_row_is_twice_as_long_up_to_a_bound(says: Says) -> None:
    ban = banned(says)
    lengths = [ban.until_s - NOW_S]
    for _ in range(STRIKES_MAX + 5):
        again = probed(ban, says)
        assert again is not None
        lengths.append(again.until_s - again.since_s)
        assert again.strikes == min(ban.strikes + 1, STRIKES_MAX)
        assert not due(again, again.since_s)
        ban = again
    soft = says in (Says.OVERLOADED, Says.FAILED)
    most_s = OVERLOAD_S_MAX if soft else STRICT.ban_max_s
    assert lengths == pytest.approx([min(lengths[0] * 2**n, most_s) for n in range(len(lengths))])


@pytest.mark.parametrize("says", FAULTS)
def test_a_probe_that_succeeds_lifts_the_ban(says: Says) -> None:
    assert probed(banned(says), Says.SUCCESS) is None


@pytest.mark.parametrize("says", FAULTS)
def test_a_probe_that_a_client_spoiled_leaves_the_ban_due(says: Says) -> None:
    ban = banned(says)
    left = probed(ban, Says.NOTHING)
    assert left == ban
    assert due(ban, ban.until_s)


@pytest.mark.parametrize("says", [Says.DEAD, Says.OUT_OF_QUOTA, Says.RATE_LIMITED, Says.NOT_ENTITLED])
@pytest.mark.parametrize("fault", [Says.FAILED, Says.OVERLOADED])
def test_a_probe_that_the_upstream_failed_says_nothing_of_the_key_and_is_made_again(says: Says, fault: Says) -> None:
    ban = banned(says)
    left = probed(ban, fault)
    assert left is not None
    assert (left.cause, left.strikes) == (ban.cause, ban.strikes)
    assert left.until_s == ban.until_s + 0.5 + STRICT.overload_s
    assert due(left, left.until_s)


@pytest.mark.parametrize("says", COUNTED)
def test_a_probe_that_fails_needs_no_row(says: Says) -> None:
    again = probed(banned(says, settings=SETTINGS), says, settings=SETTINGS)
    assert again is not None
    assert not usable(again)
    assert again.strikes == 2


def test_a_probe_that_hears_another_reason_begins_with_that() -> None:
    again = probed(banned(Says.DEAD), Says.RATE_LIMITED, wait_s=7)
    assert again is not None
    assert (again.cause, again.strikes, again.until_s - again.since_s) == (BanCause.RATE_LIMITED, 1, 7)


def test_two_faults_of_the_upstream_are_of_one_kind() -> None:
    again = probed(banned(Says.FAILED), Says.OVERLOADED)
    assert again is not None
    assert (again.cause, again.strikes) == (BanCause.OVERLOADED, 2)


def test_a_probe_whose_worker_died_is_granted_anew() -> None:
    ban = banned(Says.DEAD)
    probing = with_probe(ban, ban.until_s, 30)
    assert not due(probing, ban.until_s + 29.9)
    assert due(probing, ban.until_s + 30)


# What comes late: the answer to a request that began before the ban.


def late(ban: Ban, says: Says, *, wait_s: float | None = None, began_s: float = NOW_S - 60) -> Ban | None:
    return after(ban, Verdict(says, wait_s), Answered(NOW_S + 2, began_s, status_of(says)), STRICT)


@pytest.mark.parametrize("says", FAULTS)
def test_a_late_success_lifts_no_ban(says: Says) -> None:
    ban = banned(says)
    assert late(ban, Says.SUCCESS) is ban


@pytest.mark.parametrize("says", FAULTS)
def test_a_request_within_a_ban_lifts_only_a_soft_one(says: Says) -> None:
    ban = banned(says)
    assert late(ban, Says.SUCCESS, began_s=NOW_S + 1) is (None if is_soft(ban) else ban)


@pytest.mark.parametrize("says", FAULTS)
@pytest.mark.parametrize("began_s", [NOW_S - 60, NOW_S + 1])
def test_a_second_answer_of_the_kind_is_no_second_strike(says: Says, began_s: float) -> None:
    ban = banned(says)
    assert late(ban, says, began_s=began_s) is ban


def test_a_late_answer_may_ask_for_longer_but_never_for_shorter() -> None:
    ban = banned(Says.RATE_LIMITED, wait_s=10)
    assert late(ban, Says.RATE_LIMITED, wait_s=60) == replace(ban, until_s=NOW_S + 62)
    assert late(ban, Says.RATE_LIMITED, wait_s=3) is ban
    assert late(ban, Says.RATE_LIMITED, wait_s=8.9) is ban  # not worth a write


def test_a_late_answer_may_say_that_things_are_worse_but_never_that_they_are_better() -> None:
    limited = banned(Says.RATE_LIMITED, wait_s=10_000)
    dead = late(limited, Says.DEAD)
    assert dead is not None
    assert (dead.cause, dead.strikes, dead.until_s) == (BanCause.DEAD, 1, limited.until_s)
    assert late(dead, Says.RATE_LIMITED, wait_s=20_000) is dead
    assert late(dead, Says.FAILED) is dead
    assert late(dead, Says.OUT_OF_QUOTA, wait_s=1) is dead


@pytest.mark.parametrize("says", COUNTED)
def test_a_late_failure_that_only_counts_is_not_counted_within_a_ban(says: Says) -> None:
    ban = banned(Says.RATE_LIMITED)
    assert after(ban, Verdict(says), Answered(NOW_S + 2, NOW_S - 60, status_of(says)), SETTINGS) is ban


def test_while_somebody_probes_only_the_probe_decides() -> None:
    ban = banned(Says.OVERLOADED)
    probing = with_probe(ban, ban.until_s, 30)
    beside = Answered(ban.until_s + 2, ban.until_s + 1, 529)
    assert after(probing, Verdict(Says.OVERLOADED), beside, SETTINGS) is probing
    assert after(probing, Verdict(Says.NOTHING), beside, SETTINGS) is probing
    graver = after(probing, Verdict(Says.DEAD), beside, SETTINGS)
    assert graver is not None
    assert (graver.cause, graver.probe_until_s) == (BanCause.DEAD, probing.probe_until_s)


def test_two_requests_after_the_end_that_nobody_granted_are_one_strike() -> None:
    ban = banned(Says.OVERLOADED)
    first = after(ban, Verdict(Says.OVERLOADED), Answered(ban.until_s + 2, ban.until_s, 529), SETTINGS)
    assert first is not None
    assert first.strikes == 2
    assert after(first, Verdict(Says.OVERLOADED), Answered(ban.until_s + 3, ban.until_s, 529), SETTINGS) is first


# Which ban an answer belongs to.


def test_a_verdict_belongs_to_its_model_where_that_is_known() -> None:
    of_model = Verdict(Says.RATE_LIMITED, 1, for_model=True)
    assert scope(of_model, "gpt") == "gpt"
    assert scope(of_model, "") == ALL_MODELS
    assert scope(Verdict(Says.DEAD), "gpt") == ALL_MODELS
    assert elsewhere(of_model) == Verdict(Says.NOTHING)
    assert verdicts(of_model, "gpt") == {"gpt": of_model, ALL_MODELS: Verdict(Says.NOTHING)}
    assert verdicts(of_model, "") == {ALL_MODELS: of_model}
    assert verdicts(Verdict(Says.DEAD), "gpt") == {ALL_MODELS: Verdict(Says.DEAD), "gpt": Verdict(Says.NOTHING)}
    assert verdicts(Verdict(Says.SUCCESS), "gpt") == dict.fromkeys(("gpt", ALL_MODELS), Verdict(Says.SUCCESS))


def test_a_model_that_is_not_to_be_had_says_nothing_where_it_is_not_known() -> None:
    assert verdicts(Verdict(Says.NOT_ENTITLED, None, for_model=True), "") == {ALL_MODELS: Verdict(Says.NOTHING)}


def test_which_bans_are_soft() -> None:
    assert [says for says in FAULTS if is_soft(banned(says))] == [Says.NOT_ENTITLED, Says.OVERLOADED, Says.FAILED]


def test_a_ban_is_forgotten_long_after_its_end() -> None:
    ban = banned(Says.NOT_ENTITLED)
    assert not forgotten(ban, ban.until_s + SETTINGS.ban_max_s, SETTINGS)
    assert forgotten(ban, ban.until_s + SETTINGS.ban_max_s + 1, SETTINGS)
    assert not forgotten(replace(ban, probe_until_s=ban.until_s + 10), ban.until_s + SETTINGS.ban_max_s + 1, SETTINGS)
    counting = told(Says.FAILED)
    assert counting is not None
    assert not forgotten(counting, counting.until_s, SETTINGS)
    assert forgotten(counting, counting.until_s + 1, SETTINGS)


def test_the_probes_name_survives_the_store() -> None:
    ban = with_probe(banned(Says.DEAD), 1_763_700_000.123456789, 30)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(ban), type=Ban)
    assert stored.probe_until_s == ban.probe_until_s
