"""The table of causes: what a client may be told, and whose fault it is."""

import re

import pytest

from proxy import errors
from proxy.errors import CLOSED, NO_ROUTE, TARGET_REFUSED, Cause, RelayError, Source, TargetRefused, UpstreamClosed

CAUSES = {name: cause for name, cause in vars(errors).items() if isinstance(cause, Cause)}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_a_cause_is_a_word_and_a_sentence_that_tell_nothing_of_anybodys_insides(cause: Cause) -> None:
    assert re.fullmatch(r"[a-z_]+", cause.word)
    assert re.fullmatch(r"[A-Z][A-Za-z' ]+\.", cause.message)


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_the_status_says_whose_fault_it_is(cause: Cause) -> None:
    statuses = {
        Source.CLIENT: range(400, 500),
        Source.UPSTREAM: (502, 504),
        Source.SELF: (500, 503),
    }
    assert cause.status in statuses[cause.source]
    assert (cause.status == 504) is cause.word.endswith("_timeout") or cause.source is Source.CLIENT


def test_no_two_causes_share_a_word() -> None:
    assert len({cause.word for cause in CAUSES.values()}) == len(CAUSES)


def test_an_error_carries_its_cause_and_nothing_else() -> None:
    error = RelayError(NO_ROUTE)
    assert (error.cause, str(error), error.args) == (NO_ROUTE, "no_route", ("no_route",))
    assert UpstreamClosed().cause is CLOSED
    assert isinstance(UpstreamClosed(), RelayError)


def test_why_a_target_is_refused_is_not_in_the_text_of_the_error() -> None:
    error = TargetRefused("10.0.0.1 is private")
    assert isinstance(error, RelayError)
    assert (error.cause, error.why, str(error)) == (TARGET_REFUSED, "10.0.0.1 is private", "target_refused")
