"""The life of a request: which connection it gets, and when it goes out once more (C60-C62)."""

import asyncio
from typing import Any

import pytest

from proxy.errors import CONNECT_REFUSED, RelayError, UpstreamClosed
from proxy.pipeline import relay
from proxy.snapshot import Snapshot
from tests.proxy.asgi import Client, Upstream, play, snapshot_of, turns

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def begin(snapshot: Snapshot, client: Client | None = None, **request: Any) -> asyncio.Task[None]:
    """A request on its way, as far as it gets without an answer."""
    client = client or Client()
    task = asyncio.create_task(relay(client.exchange(**request), snapshot))
    await turns()
    return task


async def warm_up(snapshot: Snapshot, upstream: Upstream) -> None:
    """One request, which leaves an idle connection."""
    task = await begin(snapshot)
    upstream.answer(OK)
    await task
    assert len(upstream.connections) == 1


def test_requests_follow_each_other_on_one_connection(upstream: Upstream) -> None:
    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        client = Client()
        task = await begin(snapshot, client)
        upstream.answer(OK)
        await task
        assert len(upstream.connections) == 1
        assert client.body == b"hello"

    play(dialogue)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_whose_connection_dies_goes_out_once_more(upstream: Upstream, method: str) -> None:
    """C62."""

    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        client = Client()
        headers = [(b"content-length", b"5")] if method == "PUT" else []
        client.put(b"hello", more=False)
        task = await begin(snapshot, client, method=method, headers=headers)
        asked = upstream.wire().sent.split(b"\r\n\r\n", 1)[1]
        upstream.close()
        await turns()
        assert len(upstream.connections) == 2
        assert upstream.wire().sent == asked
        upstream.answer(OK if method != "HEAD" else OK[:-5])
        await task
        assert client.status == 200

    play(dialogue)


@pytest.mark.parametrize("method", ["POST", "PATCH", "QUERY"])
def test_a_request_that_may_have_been_processed_does_not(upstream: Upstream, method: str) -> None:
    """C61."""

    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        task = await begin(snapshot, method=method)
        upstream.close()
        with pytest.raises(UpstreamClosed):
            await task
        assert len(upstream.connections) == 1

    play(dialogue)


def test_a_fresh_connection_that_dies_is_the_end(upstream: Upstream) -> None:
    async def dialogue() -> None:
        snapshot = snapshot_of()
        task = await begin(snapshot)
        upstream.close()
        with pytest.raises(UpstreamClosed):
            await task
        assert len(upstream.connections) == 1

    play(dialogue)


def test_a_second_attempt_is_the_last(upstream: Upstream) -> None:
    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        task = await begin(snapshot)
        upstream.close()
        await turns()
        upstream.close()
        with pytest.raises(UpstreamClosed):
            await task
        assert len(upstream.connections) == 2

    play(dialogue)


def test_one_byte_of_an_answer_is_an_answer(upstream: Upstream) -> None:
    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        task = await begin(snapshot)
        upstream.answer(b"H")
        upstream.close()
        with pytest.raises(RelayError, match="truncated"):
            await task
        assert len(upstream.connections) == 1

    play(dialogue)


def test_a_body_that_is_still_coming_cannot_go_out_again(upstream: Upstream) -> None:
    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        client = Client()
        client.put(b"a part", more=True)
        task = await begin(snapshot, client, method="PUT", headers=[(b"transfer-encoding", b"chunked")])
        upstream.close()
        with pytest.raises(UpstreamClosed):
            await task
        assert len(upstream.connections) == 1

    play(dialogue)


def test_a_connection_that_closed_while_it_idled_is_not_even_tried(upstream: Upstream) -> None:
    """C60."""

    async def dialogue() -> None:
        snapshot = snapshot_of()
        await warm_up(snapshot, upstream)
        upstream.close()
        client = Client()
        task = await begin(snapshot, client, method="POST")
        upstream.answer(OK)
        await task
        assert client.body == b"hello"

    play(dialogue)


def test_a_place_is_given_back_whatever_becomes_of_a_request(upstream: Upstream) -> None:
    async def dialogue() -> None:
        snapshot = snapshot_of(max_connections=1, pool_wait_s=0.01)
        for _ in range(3):
            task = await begin(snapshot)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            task = await begin(snapshot)
            upstream.answer(b"garbage")
            with pytest.raises(RelayError, match="bad_response"):
                await task
            upstream.error = RelayError(CONNECT_REFUSED)
            with pytest.raises(RelayError, match="connect_refused"):
                await (await begin(snapshot))
            upstream.error = None
        held = await begin(snapshot)
        with pytest.raises(RelayError, match="pool_full"):
            await (await begin(snapshot))
        upstream.answer(OK)
        await held

    play(dialogue)
