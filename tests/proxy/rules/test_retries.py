"""When a request may be sent again (C61, C62)."""

import pytest

from proxy.rules.retries import ATTEMPTS_MAX, may_retry


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
