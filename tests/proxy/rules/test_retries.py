"""When a request may be sent again (C61, C62)."""

import pytest

from proxy.config import KeyPool
from proxy.rules.credentials import Says, Verdict
from proxy.rules.retries import ATTEMPTS_MAX, ATTEMPTS_WITH_KEYS_MAX, Again, again, may_retry


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_goes_out_once_more_where_an_idle_close_crossed_it(method: str) -> None:
    assert may_retry(method, attempts=1, exchanges=2, body_whole=True)


@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "QUERY", "PROPFIND", ""])
def test_any_other_may_have_been_processed_and_does_not(method: str) -> None:
    assert not may_retry(method, attempts=1, exchanges=2, body_whole=True)


def test_a_fresh_connection_that_closes_is_no_idle_close() -> None:
    assert not may_retry("GET", attempts=1, exchanges=1, body_whole=True)


def test_a_body_of_which_a_part_is_gone_cannot_be_sent_again() -> None:
    assert not may_retry("PUT", attempts=1, exchanges=2, body_whole=False)


def test_nothing_goes_out_a_third_time() -> None:
    assert not may_retry("GET", attempts=ATTEMPTS_MAX, exchanges=9, body_whole=True)


def ways(says: Says, status: int, *, model_known: bool = True, **settings: int) -> list[Again]:
    """What is said of one answer after the other, until there are no more attempts."""
    pool = KeyPool(**settings)  # type: ignore[arg-type]
    said: list[Again] = []
    while not said or said[-1] is not Again.NO:
        said.append(
            again(
                Verdict(says),
                status,
                method="POST",
                attempts=len(said) + 1,
                refusals=said.count(Again.INSTEAD),
                model_known=model_known,
                body_kept=True,
                settings=pool,
            )
        )
    return said


@pytest.mark.parametrize(
    ("says", "status"), [(Says.RATE_LIMITED, 429), (Says.DEAD, 401), (Says.UNAUTHORIZED, 401), (Says.NOT_ENTITLED, 404)]
)
def test_a_credential_that_is_refused_is_replaced_and_that_is_no_retry(says: Says, status: int) -> None:
    assert ways(says, status, retry_max=1) == [Again.INSTEAD] * (ATTEMPTS_WITH_KEYS_MAX - 1) + [Again.NO]


def test_a_403_that_may_be_the_clients_fault_is_a_retry_without_a_pause() -> None:
    assert ways(Says.FORBIDDEN, 403, retry_max=2) == [Again.AT_ONCE] * 2 + [Again.NO]


def test_a_model_that_no_key_was_ever_good_for_is_asked_of_a_few() -> None:
    """A misspelt one would else be asked of each key, by each request."""
    assert ways(Says.NOT_ENTITLED, 404, model_known=False, retry_max=2) == [Again.AT_ONCE] * 2 + [Again.NO]


def test_a_failure_of_the_upstream_is_a_retry_after_a_pause() -> None:
    assert ways(Says.FAILED, 500, retry_max=2) == [Again.AFTER_A_PAUSE] * 2 + [Again.NO]


@pytest.mark.parametrize("says", [Says.NOTHING, Says.SUCCESS])
def test_what_is_no_fault_of_the_credential_is_not_repeated(says: Says) -> None:
    assert ways(says, 403) == [Again.NO]
