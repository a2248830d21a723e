"""A key that is rate-limited rests for as long as its provider says, on all workers, and comes back by one probe."""

import time
from collections.abc import Callable

import pytest

from loadtests.fake_provider_keys import Behaviour, Does, Tells
from loadtests.fake_provider_requests import Asked
from tests.end_to_end.calls import ANTHROPIC, GEMINI, OPENAI, Call, bad
from tests.end_to_end.key_pool import WORKERS, Pool
from tests.end_to_end.waiting import eventually

LIMITED_S = 1.5
PROBE_S = 0.4
"""How long a probe is under way, so that others would be seen beside it."""
UNDER_WAY_S = 0.5
"""Within so long after the first refusal all that were on their way have arrived, on a machine that is busy."""
ROUNDING_S = 0.05
"""The relay's clock and the provider's are one; times told in whole milliseconds and floats are not."""
BACK_S = 1.5

FORMS = [
    (OPENAI, [Tells.RETRY_AFTER, Tells.RETRY_AFTER_DATE, Tells.RETRY_AFTER_MS, Tells.RESET]),
    (ANTHROPIC, [Tells.RETRY_AFTER, Tells.RESET]),
    (GEMINI, [Tells.RETRY_INFO]),
]


@pytest.mark.parametrize(("call", "forms"), FORMS, ids=["openai", "anthropic", "gemini"])
def test_a_limited_key_rests_as_told_and_is_probed_once(
    pool: Pool, call: Call, forms: list[Tells], stood_still_s: Callable[[], float]
) -> None:
    *limited, _ = pool.add(len(forms) + 1)
    for key, tells in zip(limited, forms, strict=True):
        plan = Behaviour(Does.RATE_LIMITED, for_s=LIMITED_S, tells=tells)
        pool.plan([key], plan, Behaviour(delay_s=PROBE_S, times=1))
    end_s = time.monotonic() + LIMITED_S + 1 + BACK_S + PROBE_S

    def is_awaited() -> bool:
        """Until all are used again, for as long as that may take a machine that runs."""
        if all(sum(each.status != 429 for each in pool.used(key)) > 1 for key in limited):
            return False
        return time.monotonic() < end_s + stood_still_s()

    told = pool.crowd_while(is_awaited, call)
    assert bad(told) == []
    assert len({each.worker for each in told}) == WORKERS
    for key in limited:
        assert_rested_and_probed(pool.used(key), stood_still_s())


def assert_rested_and_probed(used: list[Asked], stood_still_s: float) -> None:
    refused = [each for each in used if each.status == 429]
    first = refused[0]
    assert used[: len(refused)] == refused
    assert refused[-1].began_s - ended_s(first) < UNDER_WAY_S + stood_still_s
    assert first.told_wait_s is not None
    back_s = first.began_s + first.told_wait_s
    probe, *later = used[len(refused) :]
    assert back_s - ROUNDING_S <= probe.began_s < back_s + BACK_S + stood_still_s
    assert later, "it was not used again"
    first_later = min(each.began_s for each in later)
    beside_s = ended_s(probe) - first_later
    assert beside_s <= ROUNDING_S, f"another began {beside_s:.3f} s before the probe's end, of {PROBE_S} s"


def ended_s(asked: Asked) -> float:
    assert asked.ended_s is not None
    return asked.ended_s


def test_a_probe_that_fails_prolongs_the_rest(pool: Pool) -> None:
    """The limit is over later than was told; each time one request finds out, and no client notices."""
    limited, _ = pool.add(2)
    again = Behaviour(Does.RATE_LIMITED, times=1, tells=Tells.RETRY_AFTER_MS, for_s=0.5, delay_s=0.2)
    pool.plan([limited], Behaviour(Does.RATE_LIMITED, for_s=0.5, tells=Tells.RETRY_AFTER_MS), again, again)
    told = pool.crowd_for(4)
    assert bad(told) == []
    used = pool.used(limited)
    refused = [each for each in used if each.status == 429]
    probes = refused[-2:]
    assert [each.at_once for each in probes] == [1, 1]
    assert probes[1].began_s - probes[0].began_s >= 0.5 - ROUNDING_S
    assert len(used) > len(refused), "it was not used again"


def test_a_client_that_leaves_its_probe_keeps_the_key_from_nobody(pool: Pool) -> None:
    """Nobody knows how that would have ended, so another probe is sent."""
    (limited,) = pool.add(1)
    limit = Behaviour(Does.RATE_LIMITED, for_s=0.5, tells=Tells.RETRY_AFTER_MS)
    pool.plan([limited], limit, Behaviour(Does.SILENT, times=1))
    assert pool.ask().status == 429
    time.sleep(0.6)
    with pool.system.client() as client:
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            pool.ask(client=client)
    with pool.client_of_each_worker() as clients:
        for each in clients:
            eventually(lambda each=each: pool.ask(client=each).status == 200, what="the use of the key")  # type: ignore[misc]
    assert bad(pool.crowd(clients=4)) == []


def test_when_all_are_limited_the_first_that_comes_back_is_waited_for(pool: Pool) -> None:
    keys = pool.add(2)
    for key, for_s in zip(keys, (30, 8), strict=True):
        pool.plan([key], Behaviour(Does.RATE_LIMITED, for_s=for_s))
    last = pool.ask()
    assert last.status == 429
    assert last.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(last.value("retry-after")) in (30, 8)
    assert sum(len(pool.used(key)) for key in keys) == 2
    with pool.client_of_each_worker() as clients:
        for each in clients:  # the other worker is told a moment later, and finds out by itself until then
            eventually(lambda each=each: pool.ask(client=each).status == 503, what="that both are limited")  # type: ignore[misc]
    seen = sum(len(pool.used(key)) for key in keys)
    told = pool.crowd(clients=8)
    assert {(each.response.status, each.response.error_type()) for each in told} == {(503, "no_credential")}
    assert {int(each.response.value("retry-after")) for each in told} <= {7, 8}
    assert sum(len(pool.used(key)) for key in keys) == seen
