"""Clients of a route with a key pool see no error while one good key is left, however the others fail.

Each test has a group of keys of its own in a system of two workers. A key fails before the first byte of an answer;
what comes after it is in `test_key_pool_endings.py`.
"""

import time

import brotli
import pytest

from loadtests.fake_provider_keys import Behaviour, Does, Tells
from loadtests.fake_requests import Ending
from proxy.config import KeyPool
from tests.end_to_end.calls import ANTHROPIC, GEMINI, HEADERS, OPENAI, Call, bad
from tests.end_to_end.key_pool import HASTY_S, WORKERS, Pool
from tests.end_to_end.waiting import eventually, never

LONG_S = 60.0
KNOWN_S = 0.1
RETRY_MAX = KeyPool().retry_max
FAILURES = [
    Behaviour(Does.PAYMENT_REQUIRED),
    Behaviour(Does.UNAUTHORIZED),
    Behaviour(Does.EXPIRED),
    Behaviour(Does.FORBIDDEN),
    Behaviour(Does.RATE_LIMITED, for_s=LONG_S),
    Behaviour(Does.OUT_OF_QUOTA),
    Behaviour(Does.NO_MODEL),
    Behaviour(Does.FAILED),
    Behaviour(Does.OVERLOADED),
    Behaviour(Does.CUT_BEFORE),
    Behaviour(Does.CUT_BEFORE, ending=Ending.RST),
]


def named(value: object) -> str | None:
    if isinstance(value, Behaviour):
        return f"{value.does}-{value.ending}" if value.ending is Ending.RST else str(value.does)
    return value.route if isinstance(value, Call) else None


@pytest.mark.parametrize(
    ("call", "failure"),
    [
        (call, failure)
        for call in (OPENAI, ANTHROPIC, GEMINI)
        for failure in FAILURES
        if (call.route, failure.does) != ("gemini", Does.NO_MODEL)  # which says the same of all keys
    ],
    ids=named,
)
def test_nobody_notices_keys_that_fail(pool: Pool, call: Call, failure: Behaviour) -> None:
    first, second, good = pool.add(3)
    pool.plan([first, second], failure)
    told = pool.crowd(call)
    assert bad(told) == []
    assert {each.worker for each in told} == set(workers(pool))
    assert [pool.provider.processed(each.marker) for each in told] == [1] * len(told)
    assert pool.used(first)
    assert pool.used(second)
    assert {each.key for each in pool.provider.with_marker(told[-1].marker)} <= {first, second, good}


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd"])
def test_what_an_error_says_is_read_in_each_coding(pool: Pool, coding: bytes) -> None:
    """By its status, Anthropic's empty balance is a mistake of the client's."""
    spent, _ = pool.add(2)
    pool.plan([spent], Behaviour(Does.OUT_OF_QUOTA))
    fields = [*HEADERS, (b"accept-encoding", coding)]
    with pool.client_of_each_worker() as clients:
        told = [pool.ask(ANTHROPIC, client=client, headers=fields).status for client in clients for _ in range(2)]
    assert told == [200] * len(told)
    assert pool.used(spent)
    eventually(lambda: pool.status_of(spent) == "banned", what="the ban in the list of keys")


def test_an_error_that_is_relayed_keeps_its_coding(pool: Pool) -> None:
    (key,) = pool.add(1)
    pool.plan([key], Behaviour(Does.FORBIDDEN))
    answer = pool.ask(headers=[*HEADERS, (b"accept-encoding", b"br")])
    assert (answer.status, answer.values("content-encoding")) == (403, [b"br"])
    assert b"This request is not allowed." in brotli.decompress(answer.body)


def test_nobody_notices_that_all_but_one_fail_in_different_ways(pool: Pool) -> None:
    *failing, _ = pool.add(7)
    ways = [Does.PAYMENT_REQUIRED, Does.UNAUTHORIZED, Does.RATE_LIMITED, Does.FORBIDDEN, Does.FAILED, Does.CUT_BEFORE]
    for key, does in zip(failing, ways, strict=True):
        pool.plan([key], Behaviour(does))
    told = pool.crowd(OPENAI.streamed())
    assert bad(told) == []
    assert all(each.response.body.endswith(b"data: [DONE]\n\n") for each in told)
    assert all(pool.provider.processed(each.marker) == 1 for each in told)


def test_a_key_that_fails_after_the_work_is_done_costs_no_client_an_answer(pool: Pool) -> None:
    """It cannot be known that it was done; `retry_idempotent_only` is for those who would rather have an error."""
    failing, _ = pool.add(2)
    pool.plan([failing], Behaviour(Does.CUT_AFTER_WORK))
    assert bad(pool.crowd()) == []


def test_a_key_whose_answer_does_not_come_is_left_for_another(pool: Pool) -> None:
    silent, _ = pool.add(2)
    pool.plan([silent], Behaviour(Does.SILENT))
    told = pool.crowd(OPENAI._replace(route="hasty"), each=2)
    assert bad(told) == []
    assert pool.used(silent)
    assert all(each.ended_s is not None and each.ended_s - each.began_s > HASTY_S / 2 for each in pool.used(silent))


def test_a_slow_key_is_waited_for_where_the_route_has_no_limit(pool: Pool) -> None:
    slow, _ = pool.add(2)
    pool.plan([slow], Behaviour(delay_s=1.0))
    told = pool.crowd(clients=4, each=1)
    assert bad(told) == []
    assert [len(pool.provider.with_marker(each.marker)) for each in told] == [1] * 4
    assert pool.status_of(slow) == "active"


def test_failures_that_are_not_in_a_row_ban_nobody(pool: Pool) -> None:
    """The threshold is 3: of 12 requests with the only key, each third one is good.

    A failure takes a moment to be known to the worker that has the success, or it would not end the row there.
    """
    (key,) = pool.add(1)
    again = [Behaviour(Does.EXPIRED, times=2), Behaviour(times=1)]
    pool.plan([key], *again * 4)
    statuses = []
    for _ in range(12):
        statuses.append(pool.ask().status)
        time.sleep(KNOWN_S)
    assert statuses == [401, 401, 200] * 4
    assert pool.status_of(key) == "active"


def test_failures_in_a_row_ban_over_all_workers(pool: Pool) -> None:
    """Two on one worker and one on the other are three."""
    failing, _ = pool.add(2)
    pool.plan([failing], Behaviour(Does.EXPIRED))
    with pool.client_of_each_worker() as clients:
        while len(pool.used(failing)) < 3:
            for client in clients:
                assert pool.ask(client=client).status == 200
    assert len(pool.used(failing)) in (3, 3 + WORKERS - 1)
    seen = len(pool.used(failing))
    eventually(lambda: pool.status_of(failing) == "banned", what="the ban in the list of keys")
    assert bad(pool.crowd()) == []
    assert len(pool.used(failing)) == seen


@pytest.mark.parametrize("call", [OPENAI, ANTHROPIC, GEMINI], ids=named)
def test_a_clients_mistakes_ban_nobody_and_are_sent_once(pool: Pool, call: Call) -> None:
    keys = pool.add(2)
    mistaken = call._replace(document={"model": "m"})
    told = pool.crowd(mistaken, each=5)
    assert {each.response.status for each in told} == {400}
    assert [len(pool.provider.with_marker(each.marker)) for each in told] == [1] * len(told)
    never(lambda: "banned" in map(pool.status_of, keys), 1.5, what="a ban")
    assert bad(pool.crowd(call, clients=4)) == []
    assert all(pool.provider.uses()[key] for key in keys)


@pytest.mark.parametrize("call", [OPENAI, ANTHROPIC], ids=named)
def test_a_client_who_asks_for_what_is_forbidden_bans_nobody(pool: Pool, call: Call) -> None:
    keys = pool.add(RETRY_MAX + 2)
    pool.plan(keys, Behaviour(Does.FORBIDDEN, model="forbidden"))
    forbidden = call._replace(document={**call.document, "model": "forbidden"})
    told = pool.crowd(forbidden, clients=4, each=5)
    assert {each.response.status for each in told} == {403}
    assert [len(pool.provider.with_marker(each.marker)) for each in told] == [1 + RETRY_MAX] * len(told)
    never(lambda: "banned" in map(pool.status_of, keys), 1.5, what="a ban")
    told = pool.crowd(call)
    assert bad(told) == []
    assert {asked.key for each in told for asked in pool.provider.with_marker(each.marker)} == set(keys)


def test_a_model_that_one_key_has_not_is_no_fault_for_the_others(pool: Pool) -> None:
    limited, other = pool.add(2)
    large = OPENAI._replace(document={**OPENAI.document, "model": "large"})
    pool.plan([limited], Behaviour(Does.NO_MODEL, model="large"))
    assert bad(pool.crowd(large)) == []
    asked = len(pool.used(limited))
    assert bad(pool.crowd(large)) == []
    assert len(pool.used(limited)) == asked, "it was asked for the model again"
    assert bad(pool.crowd()) == []
    assert {each.model for each in pool.used(limited)[asked:]} == {"gpt-fake"}
    assert {each.model for each in pool.used(other)} == {"gpt-fake", "large"}


@pytest.mark.parametrize("tells", [Tells.NOTHING, Tells.RETRY_AFTER])
def test_a_crowd_that_meets_a_limit_is_one_line_of_the_log(pool: Pool, tells: Tells) -> None:
    limited, _ = pool.add(2)
    pool.plan([limited], Behaviour(Does.RATE_LIMITED, for_s=LONG_S, tells=tells))
    name = pool.id_of(limited)
    before = len(lines_about(pool, name))
    assert bad(pool.crowd()) == []
    eventually(lambda: len(lines_about(pool, name)) > before, what="a line about the ban")
    assert len(lines_about(pool, name)) == before + 1


def lines_about(pool: Pool, credential: str) -> list[str]:
    """Log lines, but not those of the access log, that name a credential."""
    lines = pool.system.output().splitlines()
    return [line for line in lines if credential in line and '"request_id"' not in line]


def workers(pool: Pool) -> list[str]:
    with pool.client_of_each_worker() as clients:
        return [pool.told(client=client).worker for client in clients]
