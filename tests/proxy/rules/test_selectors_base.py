"""Buckets against a dictionary, which says the same and is slower."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.credentials import Credential
from proxy.rules.selectors_base import Buckets, Candidate, Place
from tests.candidates import candidate

steps = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 3)))


@given(steps)
def test_each_candidate_is_in_the_bucket_it_was_put_into_last_and_in_no_other(
    steps: list[tuple[int, int | None]],
) -> None:
    candidates = [candidate(str(index)) for index in range(10)]
    buckets = Buckets()
    naive: dict[Candidate, int] = {}
    guesses: list[Place | None] = [None]
    for index, number in steps:
        one = candidates[index]
        if number is None:
            buckets.discard(one)
            naive.pop(one, None)
        else:
            assert buckets.put(one, number) is (naive.get(one) != number)
            naive[one] = number
        assert len(buckets) == len(naive)
        assert all((one in buckets) == (one in naive) for one in candidates)
        found = [(one.candidate, number) for number, bucket in buckets.by_number.items() for one in bucket]
        assert len(found) == len(naive)
        assert dict(found) == naive
        assert all(buckets.by_number.values()), "an empty bucket"
        guesses.append(buckets.places.get(one))
        assert all(buckets.place(one, guess) is buckets.places.get(one) for guess in guesses)


def test_a_candidate_begins_with_the_published_figures_and_tells_no_secret() -> None:
    credential = Credential("id-1", "canary", requests=9, successes=8, last_used_s=7.0, tokens_used=6, tokens_total=5)
    made = Candidate(credential)
    assert (made.id, made.requests, made.successes) == ("id-1", 9, 8)
    assert (made.last_used_s, made.tokens_used, made.tokens_total) == (7.0, 6, 5)
    assert "canary" not in repr(made)


def test_two_candidates_of_one_credential_are_two() -> None:
    credential = Credential("id-1", "")
    assert len({Candidate(credential), Candidate(credential)}) == 2
