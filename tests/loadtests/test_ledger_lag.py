"""The lag is that of the oldest entry, and a row for each request must be there. The case itself runs in
`test_own_cases.py`.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loadtests import ledger_lag
from loadtests.cases import WrongAnswerError
from loadtests.keep_alive import Answer, KeepAlive
from loadtests.ledger_lag import FIELDS, Admin, expect_rows, oldest, watched
from loadtests.relay_pairs import CONNECTIONS
from loadtests.wrk import WrkFigures
from proxy.shared_state.keys import METER_LEDGER
from tests.redis_servers import EMBEDDED, connected, redis_at

FIGURES = WrkFigures(1, 1.0, 1, 1, ())


class Wire(KeepAlive):
    """Answers each path with what it is told: a status and its data."""

    def __init__(self, answers: Mapping[str, tuple[int, Any]]) -> None:
        self._answers = answers

    async def ask(self, method: bytes, target: bytes, body: bytes = b"", fields: bytes = b"") -> Answer:  # noqa: ARG002
        assert fields == FIELDS
        status, data = self._answers[target.decode().partition("?")[0].rpartition("/")[2]]
        return Answer(status, "", json.dumps({"data": data}).encode())


def test_the_lag_is_the_age_of_the_oldest_entry(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        async with connected(url) as client:
            assert await oldest(client) == (0, 0.0)
            seconds, _ = await client.time()
            for since_s in (seconds - 7, seconds - 3):
                await client.xadd(METER_LEDGER, {"x": "y"}, id=f"{since_s * 1000}-1")
            waiting, age_s = await oldest(client)
            assert waiting == 2
            assert 7 <= age_s < 60
            await client.xtrim(METER_LEDGER, maxlen=1, approximate=False)
            assert 3 <= (await oldest(client))[1] < age_s

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(story(url))


def test_it_is_looked_at_until_all_rows_are_in_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_lag, "POLL_S", 0.01)
    answers: dict[str, tuple[int, Any]] = {"stats": (200, {"lag_seconds": None})}

    async def story(url: str) -> None:
        async with connected(url) as client:
            await client.xadd(METER_LEDGER, {"x": "y"})
            load = asyncio.create_task(asyncio.sleep(0.02, FIGURES))
            watching = asyncio.create_task(watched(load, client, Admin(Wire(answers))))
            await asyncio.sleep(0.2)
            await client.delete(METER_LEDGER)
            await asyncio.sleep(0.2)
            assert not watching.done()  # the API has told nothing so far
            answers["stats"] = (200, {"lag_seconds": 0.25})
            lags = await watching
            assert max(lags.exact_s) > 0.1
            assert lags.told_s == [0.25]

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(story(url))


def test_rows_that_stay_in_redis_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_lag, "POLL_S", 0.01)
    monkeypatch.setattr(ledger_lag, "DRAIN_S_MAX", 0.05)

    async def story(url: str) -> None:
        async with connected(url) as client:
            await client.xadd(METER_LEDGER, {"x": "y"})
            load = asyncio.create_task(asyncio.sleep(0, FIGURES))
            with pytest.raises(WrongAnswerError, match="1 entries of the ledger wait"):
                await watched(load, client, Admin(Wire({"stats": (200, {"lag_seconds": 0.1})})))

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(story(url))


@pytest.mark.parametrize("more", [0, CONNECTIONS])
def test_each_request_has_a_row(more: int) -> None:
    asyncio.run(expect_rows(telling(101 + more, 100 + more), "tok_1", 100))


@pytest.mark.parametrize(("rows", "consumed"), [(101, 101), (100, 99), (103 + CONNECTIONS, 102 + CONNECTIONS)])
def test_a_row_too_few_or_too_many_is_an_error(rows: int, consumed: int) -> None:
    with pytest.raises(WrongAnswerError, match="100 requests"):
        asyncio.run(expect_rows(telling(rows, consumed), "tok_1", 100))


def test_a_refusal_of_the_admin_api_is_an_error() -> None:
    with pytest.raises(WrongAnswerError, match="status 503"):
        asyncio.run(Admin(Wire({"stats": (503, None)})).ask(b"GET", b"/stats"))


def telling(rows: int, consumed: int) -> Admin:
    return Admin(Wire({"logs": (200, {"total": rows}), "quota": (200, {"consumed_quota": consumed})}))
