"""The one change to Granian's worker: a body is asked for early, and only where asking says nothing to the client."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from proxy.granian_worker import EagerReceive, has_body_at_hand
from proxy.rules.headers import Header
from tests.proxy.asgi import play


class Receive:
    """Granian's `receive`: counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Awaitable[Any]:
        self.asked += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_result(self.asked)
        return answer


def test_the_first_message_is_asked_for_before_anybody_wants_it() -> None:
    async def dialogue() -> None:
        granians = Receive()
        receive = EagerReceive(granians)
        assert granians.asked == 1
        assert [await receive() for _ in range(3)] == [1, 2, 3]
        assert granians.asked == 3

    play(dialogue)


def test_a_first_message_that_nobody_wants_is_no_trouble() -> None:
    async def dialogue() -> None:
        granians = Receive()
        EagerReceive(granians)
        await asyncio.sleep(0)
        assert granians.asked == 1

    play(dialogue)


LENGTH = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")
EXPECT = (b"expect", b"100-continue")


@pytest.mark.parametrize(
    ("headers", "at_hand"),
    [
        ([], False),
        ([(b"host", b"a")], False),
        ([LENGTH], True),
        ([(b"a", b"1"), CHUNKED, (b"a", b"2")], True),
        ([EXPECT, LENGTH], False),
        ([CHUNKED, EXPECT], False),
        ([EXPECT], False),
    ],
)
def test_a_body_is_asked_for_only_where_asking_gives_no_leave_to_send_it(
    headers: list[Header], *, at_hand: bool
) -> None:
    """C17."""
    assert has_body_at_hand({"headers": headers}) is at_hand
