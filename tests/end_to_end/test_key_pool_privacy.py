"""What a client shows who it is with reaches the upstream where the route says so, and nowhere else.

`CLIENTS_KEY` is the client's own. The provider records every byte that comes.
"""

from collections.abc import Sequence

import pytest

from loadtests.fake_provider_requests import QUERY_PLACE, Asked
from tests.end_to_end.calls import ANTHROPIC, CLIENTS_KEY, GEMINI, OPENAI, Call
from tests.end_to_end.key_pool import Pool
from tests.end_to_end.raw_client import Header

SECRET = CLIENTS_KEY.encode()
CONTENT = (b"content-type", b"application/json")
BEARER = (b"authorization", b"Bearer " + SECRET)
FIELDS: list[Header] = [BEARER, (b"x-api-key", SECRET), (b"api-key", SECRET), (b"x-goog-api-key", SECRET)]
MIXED: list[Header] = [(b"AUTHORIZATION", b"bearer " + SECRET), (b"X-Api-Key", SECRET), (b"X-API-KEY", SECRET)]
COOKIE = (b"cookie", b"session=" + SECRET)
SHOWN: list[list[Header]] = [*([field] for field in (*FIELDS, COOKIE)), FIELDS, MIXED, []]
CALLS = [OPENAI, ANTHROPIC, GEMINI]
OWN_PLACE = {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}
BY_ROUTE = pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call.route))


def asked_with(pool: Pool, call: Call, headers: Sequence[Header], query: str = "") -> Asked:
    """What the provider got, which was good with a key of the pool."""
    marker = pool.marker()
    asked = call._replace(path=call.path + query)
    assert pool.ask(asked, marker=marker, headers=[CONTENT, *headers]).status == 200
    (seen,) = pool.provider.with_marker(marker)
    return seen


@BY_ROUTE
@pytest.mark.parametrize("headers", SHOWN, ids=lambda headers: "+".join(name.decode() for name, _ in headers) or "none")
def test_a_pool_shows_its_own_key_alone(pool: Pool, call: Call, headers: list[Header]) -> None:
    (key,) = pool.add(1)
    asked = asked_with(pool, call, headers)
    assert SECRET not in asked.recorded.head
    assert SECRET not in asked.recorded.body
    assert asked.key == key
    assert set(asked.credentials) == {OWN_PLACE[call.route]}


@BY_ROUTE
@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("?key={0}", b""),
        ("?alt=json&key={0}&x=1%20", b"?alt=json&x=1%20"),
        ("?key={0}&a=1&key={0}", b"?a=1"),
        ("?k%65y={0}&a=1", b"?a=1"),
    ],
)
def test_a_key_in_the_query_is_taken_out_and_the_rest_left(pool: Pool, call: Call, query: str, left: bytes) -> None:
    pool.add(1)
    asked = asked_with(pool, call, [], query.format(CLIENTS_KEY))
    assert SECRET not in asked.recorded.head
    assert QUERY_PLACE not in asked.credentials
    assert asked.recorded.target == call.path.encode() + left


@BY_ROUTE
def test_the_clients_own_passes_where_the_route_says_so(pool: Pool, call: Call) -> None:
    pool.provider.plan(CLIENTS_KEY)
    since = len(pool.provider.asked)
    target = f"/client/{call.route}{call.path}?key={CLIENTS_KEY}"
    response = pool.system.request("POST", target, [CONTENT, *FIELDS], b'{"model":"m"}')
    pool.provider.revoke(CLIENTS_KEY)
    assert response.status in (200, 400)
    (asked,) = pool.provider.asked[since:]
    assert {place: value.rpartition(" ")[2] for place, value in asked.credentials.items()} == dict.fromkeys(
        ("authorization", "x-api-key", "api-key", "x-goog-api-key", QUERY_PLACE), CLIENTS_KEY
    )


def test_fields_that_are_no_credential_pass(pool: Pool) -> None:
    pool.add(1)
    others: list[Header] = [(b"x-other", b"1"), (b"anthropic-beta", b"x")]
    recorded = asked_with(pool, ANTHROPIC, [*others, BEARER]).recorded
    assert [(name, recorded.values(name.decode())) for name, _ in others] == [(name, [value]) for name, value in others]


def test_each_attempt_has_one_key(pool: Pool) -> None:
    """The key of the attempt before is not left in the request."""
    first, second = pool.add(2)
    pool.provider.revoke(first)
    for call in CALLS:
        for _ in range(4):
            marker = pool.marker()
            assert pool.ask(call, marker=marker, headers=[CONTENT, *FIELDS]).status == 200
            for each in pool.provider.with_marker(marker):
                assert len(each.credentials) == 1
                assert (first in str(each.credentials)) != (second in str(each.credentials))
