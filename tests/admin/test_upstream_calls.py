"""Calls of the control plane's own: what they answer, and which targets they refuse."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from admin.rules.key_calls import Call, call
from admin.upstream_calls import BODY_BYTES_MAX, Answered, UpstreamCalls
from loadtests.processes import free_port
from proxy.config import CredentialSource, Route
from tests.admin.models_upstream import models_upstream

SECRET = "sk-canary-0123456789"


def asked(target: str, *, allowed: bool = True, timeout_s: float = 5.0) -> Answered:
    """What comes of a test call to a target."""

    async def story() -> Answered:
        calls = UpstreamCalls(allow_private_targets=allowed)
        try:
            route = Route(target=target, credential=CredentialSource.POOL)
            return await calls.ask(call(route, SECRET), timeout_s)
        finally:
            await calls.close()

    return asyncio.run(story())


def test_an_answer_is_its_status_and_redirections_are_not_followed() -> None:
    async def story() -> None:
        async with models_upstream() as upstream:
            calls = UpstreamCalls(allow_private_targets=True)
            upstream.statuses[SECRET] = [200, 302, 429, 0]
            route = Route(target=upstream.url, credential=CredentialSource.POOL)
            found: list[Any] = [await calls.ask(call(route, SECRET), 5) for _ in range(4)]
            await calls.close()
        found = [answered._replace(body=b"") for answered in found]
        assert found == [Answered(200), Answered(302), Answered(429), Answered(0, "no_answer")]
        assert upstream.asked[SECRET] == 5, "aiohttp sends a GET anew whose connection ends"

    asyncio.run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "metadata.google.internal"])
def test_a_private_target_is_refused(host: str) -> None:
    assert asked(f"http://{host}:9", allowed=False) == Answered(0, "target_refused")


def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name alone does not tell, so it is the resolver that has to."""
    monkeypatch.setattr("admin.upstream_calls.target_refusal", lambda _: None)
    assert asked("http://localhost:9", allowed=False) == Answered(0, "target_refused")


def test_what_does_not_answer_is_a_word_without_the_key() -> None:
    assert asked(f"http://127.0.0.1:{free_port()}") == Answered(0, "connect_refused")
    assert asked("http://no-such-host.invalid") == Answered(0, "dns_failed")


def test_silence_is_a_timeout() -> None:
    async def story() -> Answered:
        async with models_upstream() as upstream:
            upstream.gate = asyncio.Event()
            calls = UpstreamCalls(allow_private_targets=True)
            route = Route(target=upstream.url, credential=CredentialSource.POOL)
            found = await calls.ask(call(route, SECRET), 0.1)
            upstream.gate.set()
            await calls.close()
            return found

    assert asyncio.run(story()) == Answered(0, "timeout")


def test_a_body_that_comes_in_pieces_is_read_whole_up_to_a_bound() -> None:
    async def story() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(int(request.query["pieces"])):
                await response.write(b"x" * 1000)
                await asyncio.sleep(0)
            return response

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        calls = UpstreamCalls(allow_private_targets=True)
        for pieces, expected in ((5, 5000), (1000, BODY_BYTES_MAX)):
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            found = await calls.ask(Call(url=f"{url}/?pieces={pieces}", fields={}, target=url, tls=None), 5)
            assert (found.status, len(found.body)) == (200, expected)
        await calls.close()
        await runner.cleanup()

    asyncio.run(story())
