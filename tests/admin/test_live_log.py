"""The live log: who hears what, who is too slow, and when it ends."""

import asyncio
import json
from typing import Any

import pytest

from admin.live_log import LiveLog
from admin.rules.live_lines import Asked
from admin.services.failures import TooManyListeners


def line(number: int, **fields: Any) -> bytes:
    return json.dumps({"number": number, **fields}).encode()


def everything(_: Any) -> bool:
    return True


def test_a_listener_hears_what_he_asked_for_from_then_on() -> None:
    async def story() -> None:
        log = LiveLog()
        log.tell(line(0))
        assert not log.wanted.is_set()
        with log.listen(Asked(status="5xx").wants) as one, log.listen(everything) as other:
            assert log.wanted.is_set()
            log.tell(line(1, status=200))
            log.tell(line(2, status=502))
            assert await one.next() == ([{"number": 2, "status": 502}], 0)
            heard = await other.next()
            assert heard is not None
            assert [one["number"] for one in heard[0]] == [1, 2]
        assert not log.wanted.is_set()
        log.tell(line(3))

    asyncio.run(story())


def test_what_is_no_line_is_passed_over() -> None:
    async def story() -> None:
        log = LiveLog()
        with log.listen(everything) as one:
            for data in (b"", b"{", b"[]", b"\xff", line(1)):
                log.tell(data)
            assert await one.next() == ([{"number": 1}], 0)

    asyncio.run(story())


def test_who_is_slow_loses_the_oldest_and_is_told_how_many() -> None:
    async def story() -> None:
        log = LiveLog(waiting_max=3)
        with log.listen(everything) as one:
            for number in range(5):
                log.tell(line(number))
            assert await one.next() == ([{"number": 2}, {"number": 3}, {"number": 4}], 2)
            log.tell(line(5))
            assert await one.next() == ([{"number": 5}], 0)

    asyncio.run(story())


def test_what_a_worker_left_out_is_lost_to_all() -> None:
    async def story() -> None:
        log = LiveLog()
        with log.listen(Asked(status="5xx").wants) as one:
            log.tell(b'{"left_out": 7}')
            log.tell(line(1, status=500))
            heard = await one.next()
            assert heard is not None
            assert (len(heard[0]), heard[1]) == (1, 7)

    asyncio.run(story())


def test_only_so_many_may_listen() -> None:
    async def story() -> None:
        log = LiveLog(listeners_max=1)
        with log.listen(everything), pytest.raises(TooManyListeners), log.listen(everything):
            pass
        with log.listen(everything):
            pass

    asyncio.run(story())


def test_silence_is_a_heartbeat_and_a_lifetime_the_end() -> None:
    async def story() -> None:
        log = LiveLog(heartbeat_s=0.02, lifetime_s=0.05)
        with log.listen(everything) as one:
            beats = 0
            while (heard := await one.next()) is not None:
                assert heard == ([], 0)
                beats += 1
        assert beats in (2, 3)

    asyncio.run(story())


def test_closing_ends_all() -> None:
    async def story() -> None:
        log = LiveLog()
        with log.listen(everything) as one:
            asyncio.get_running_loop().call_later(0.01, log.close)
            assert await one.next() is None
            assert await one.next() is None

    asyncio.run(story())
