"""The table of what the admin API refuses."""

import pytest

from admin import answers
from admin.services.failures import (
    DuplicateBackend,
    DuplicateRoute,
    NoSuchBackend,
    NoSuchRoute,
    NoSuchUpstream,
    NoSuchVersion,
)
from proxy.config import ConfigError


@pytest.mark.parametrize(
    ("failure", "status", "word"),
    [
        (DuplicateRoute("/x"), 400, "duplicate"),
        (NoSuchRoute("/x"), 404, "not_found"),
        (NoSuchVersion(5), 404, "not_found"),
        (NoSuchUpstream("api"), 404, "not_found"),
        (NoSuchBackend("b1"), 404, "not_found"),
        (DuplicateBackend("b1"), 409, "duplicate"),
        (ConfigError("routes./x.target", "found 5, expected text"), 400, "unusable"),
        (answers.forbidden("no"), 403, "forbidden"),
    ],
)
def test_what_a_service_refuses_has_an_answer(failure: Exception, status: int, word: str) -> None:
    refusal = answers.of_failure(failure)
    assert refusal is not None
    assert (refusal.status, refusal.problem.error) == (status, word)


@pytest.mark.parametrize("failure", [RuntimeError("s3cret"), KeyError("s3cret"), OSError("s3cret")])
def test_what_is_no_refusal_has_none(failure: Exception) -> None:
    assert answers.of_failure(failure) is None


def test_each_refusal_of_the_table_is_a_sentence() -> None:
    for problem in (*answers.OF_STATUS.values(), answers.UNAVAILABLE, answers.INTERNAL):
        assert problem.message.endswith(".")
        assert problem.error.replace("_", "").isalpha()


def test_answers_are_documented_with_what_may_always_happen() -> None:
    assert list(answers.documented(404, 401)) == [401, 404, 500]
