"""What the provider is asked, and what becomes of each of its ways to fail."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trustme
from aiohttp import web

from admin.rules.oauth import INVALID_GRANT, Refusal, Renewed
from admin.token_endpoint import ANSWER_BYTES_MAX, TokenEndpoint
from loadtests.processes import free_port
from proxy.config import Config, Credentials, Server
from tests.admin.fake_identity_provider import FakeIdentityProvider, Next, identity_provider

NOW_MS = 1_763_700_000_000
TIMEOUT_S = 5.0


def endpoint(url: str, timeout_s: float = TIMEOUT_S, server: Server | None = None) -> TokenEndpoint:
    credentials = Credentials(token_url=url, client_id="client")
    server = server or Server(allow_private_targets=True)
    return TokenEndpoint(Config(credentials=credentials, server=server), lambda: NOW_MS, timeout_s)


def play(story: Callable[[FakeIdentityProvider], Awaitable[None]]) -> None:
    async def main() -> None:
        async with identity_provider() as provider:
            await story(provider)

    asyncio.run(main())


def test_the_form_brings_tokens() -> None:
    async def story(provider: FakeIdentityProvider) -> None:
        assert await endpoint(provider.url).refresh("rt-0") == Renewed("at-1", "rt-1", NOW_MS + 8 * 3_600_000)
        assert provider.forms == [{"grant_type": "refresh_token", "refresh_token": "rt-0", "client_id": "client"}]
        assert provider.headers[0]["content-type"] == "application/x-www-form-urlencoded"
        assert "cookie" not in provider.headers[0]

    play(story)


def test_an_organization_is_told() -> None:
    async def story(provider: FakeIdentityProvider) -> None:
        credentials = Credentials(token_url=provider.url, client_id="a&b", organization_id="org")
        config = Config(credentials=credentials, server=Server(allow_private_targets=True))
        await TokenEndpoint(config, lambda: NOW_MS).refresh("rt-0")
        assert (provider.forms[0]["client_id"], provider.forms[0]["organization_id"]) == ("a&b", "org")

    play(story)


@pytest.mark.parametrize(
    ("failing", "refusal"),
    [
        (Next.FAILS, Refusal("HTTP 500")),
        (Next.CUTS, Refusal("the connection was cut")),
        (Next.SENDS_AWAY, Refusal("HTTP 307: credentials.token_url leads elsewhere", True)),
        (Next.IS_HUGE, Refusal(f"HTTP 200 with an answer longer than {ANSWER_BYTES_MAX} bytes")),
        (Next.DENIES_CLIENT, Refusal("invalid_client", True)),
    ],
)
def test_each_failure_has_its_word_and_nothing_is_sent_twice(failing: Next, refusal: Refusal) -> None:
    async def story(provider: FakeIdentityProvider) -> None:
        provider.coming = [failing]
        assert await endpoint(provider.url).refresh("rt-0") == refusal
        assert len(provider.forms) == 1

    play(story)


def test_a_spent_token() -> None:
    async def story(provider: FakeIdentityProvider) -> None:
        asked = endpoint(provider.url)
        await asked.refresh("rt-0")
        assert await asked.refresh("rt-0") == Refusal(INVALID_GRANT, True, True)
        assert provider.reused == 1

    play(story)


def test_a_provider_that_hangs_is_left() -> None:
    async def story(provider: FakeIdentityProvider) -> None:
        provider.coming = [Next.HANGS]
        began_s = time.monotonic()
        assert await endpoint(provider.url, timeout_s=0.2).refresh("rt-0") == Refusal("no answer in time")
        assert time.monotonic() - began_s < 5

    play(story)


def test_nobody_there() -> None:
    refusal = asyncio.run(endpoint(f"http://127.0.0.1:{free_port()}").refresh("rt-0"))
    assert refusal == Refusal("cannot connect")


def test_a_name_that_is_none() -> None:
    refusal = asyncio.run(endpoint("http://nobody.invalid").refresh("rt-0"))
    assert refusal == Refusal("its name is not resolved")


def test_a_certificate_of_nobody() -> None:
    async def main() -> None:
        certificate = trustme.CA().issue_cert("127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        runner = web.AppRunner(web.Application())
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            port = runner.addresses[0][1]
            refusal = await endpoint(f"https://127.0.0.1:{port}").refresh("rt-0")
            assert refusal == Refusal("its certificate is not valid")
        finally:
            await runner.cleanup()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://127.0.0.1:1", "loopback"),
        ("http://[::ffff:169.254.169.254]", "link-local"),
        ("http://localhost:1", "loopback"),
        ("https://metadata.google.internal", "private"),
    ],
)
def test_a_private_target_is_refused_by_its_text(url: str, word: str) -> None:
    refusal = asyncio.run(endpoint(url, server=Server()).refresh("rt-0"))
    assert refusal == Refusal(f"the host of credentials.token_url is {word}, expected a public one", True)


def test_and_by_what_its_name_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(provider: FakeIdentityProvider) -> None:
        loop = asyncio.get_running_loop()
        resolve = loop.getaddrinfo

        async def elsewhere(_host: object, *rest: object, **options: object) -> object:
            return await resolve("127.0.0.1", *rest, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "getaddrinfo", elsewhere)
        url = provider.url.replace("127.0.0.1", "provider.example")
        refusal = await endpoint(url, server=Server()).refresh("rt-0")
        assert refusal == Refusal("the host of credentials.token_url is loopback, expected a public one")
        assert provider.forms == []
        assert isinstance(await endpoint(url).refresh("rt-0"), Renewed)

    play(story)


def test_without_a_client_id_nobody_is_asked() -> None:
    config = msgspec.structs.replace(Config(), credentials=Credentials())
    refusal = asyncio.run(TokenEndpoint(config, lambda: NOW_MS).refresh("rt-0"))
    assert refusal == Refusal("credentials.client_id is not set", True)
