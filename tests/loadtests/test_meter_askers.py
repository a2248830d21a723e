"""Askers are admitted by a real Redis and counted there; where one is not, nobody takes that for a figure."""

import asyncio
from pathlib import Path

import pytest

from loadtests.cases import WrongAnswerError
from loadtests.meter_askers import ask
from loadtests.metering_cost import publish, taken_of
from tests.proxy.shared_state.metering import counted, timed
from tests.redis_servers import EMBEDDED, redis_at

PLENTY = 10_000_000


def test_each_admission_is_counted_once_and_all_tokens_are_asked_for(tmp_path: Path) -> None:
    tokens = [counted(number, PLENTY) for number in range(3)]
    digests = [token.digest for token in tokens]
    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(publish(url, tokens))
        first, second = (ask(url, digests, 6, 0.1) for _ in range(2))
        each = [asyncio.run(taken_of(url, [digest])) for digest in digests]
    assert sum(each) == first.admitted_in_all + second.admitted_in_all
    assert all(each)
    assert 0 < first.admitted < first.admitted_in_all
    assert 0 < first.wait_p50_s <= first.wait_p95_s
    assert first.admitted_per_s == first.admitted / first.seconds
    assert first.seconds >= 0.099  # the loop's clock steps in whole milliseconds


def test_a_token_that_counts_nothing_is_asked_for_all_the_same(tmp_path: Path) -> None:
    token = timed(1)
    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(publish(url, [token]))
        assert ask(url, [token.digest], 2, 0.1).admitted
        assert asyncio.run(taken_of(url, [token.digest])) == 0


def test_who_is_refused_is_no_figure(tmp_path: Path) -> None:
    token = counted(1, 10)
    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(publish(url, [token]))
        with pytest.raises(WrongAnswerError, match="QUOTA"):
            ask(url, [token.digest], 2, 0.1)


def test_without_redis_there_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(WrongAnswerError, match="StoreUnavailable"):
        ask(f"unix://{tmp_path}/nobody.sock", ["0" * 64], 2, 0.1)
