"""What is told of the use of credentials: each attempt once."""

from proxy.key_pool.figures import BANS_MAX, Figures
from proxy.rules.credentials import Ban, BanCause, Credential, Says
from proxy.rules.selection import Candidate
from proxy.shared_state.credential_events import BanChange, CredentialCounts


def used(figures: Figures, candidate: Candidate, requests: int, successes: int) -> None:
    candidate.requests += requests
    candidate.successes += successes
    candidate.last_used_s = 5.0
    figures.use(candidate)


def test_what_was_told_is_not_told_again() -> None:
    figures = Figures()
    candidate = Candidate(Credential("a", "", requests=100, successes=90))
    figures.begin(candidate)
    assert figures.take_counts() == []
    used(figures, candidate, 3, 2)
    figures.count_error(candidate, Says.RATE_LIMITED, 429, 5.0)
    assert figures.take_counts() == [CredentialCounts("a", 3, 2, 1, 5.0, "rate_limited", 5.0, 429)]
    assert figures.take_counts() == []
    used(figures, candidate, 1, 1)
    assert figures.take_counts() == [CredentialCounts("a", 1, 1, 0, 5.0)]


def test_an_error_after_its_use_was_told_is_told() -> None:
    figures = Figures()
    candidate = Candidate(Credential("a", ""))
    figures.begin(candidate)
    used(figures, candidate, 1, 0)
    figures.take_counts()
    figures.count_error(candidate, Says.FAILED, 500, 6.0)
    assert figures.take_counts() == [CredentialCounts("a", 0, 0, 1, 0.0, "failed", 6.0, 500)]


def test_who_is_gone_is_not_told_of() -> None:
    figures = Figures()
    candidate = Candidate(Credential("a", ""))
    figures.begin(candidate)
    used(figures, candidate, 1, 1)
    figures.forget(candidate)
    assert figures.take_counts() == []


def test_bans_begin_and_end() -> None:
    figures = Figures()
    figures.note(("a", "m"), Ban(BanCause.RATE_LIMITED, 1.0, 9.0, strikes=2, status=429), 3.0)
    figures.note(("a", "m"), None, 4.0)
    assert figures.take_bans() == [
        BanChange("a", "m", BanCause.RATE_LIMITED, 1.0, 9.0, 429, 2),
        BanChange("a", "m", None, 4.0),
    ]
    assert figures.take_bans() == []


def test_what_nobody_takes_does_not_grow() -> None:
    figures = Figures()
    for number in range(BANS_MAX + 5):
        figures.note((str(number), ""), None, 0.0)
    bans = figures.take_bans()
    assert len(bans) == BANS_MAX
    assert bans[0].id == "5"
