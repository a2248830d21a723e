"""A token endpoint on loopback: each refresh token is good once, and what goes wrong is told to it beforehand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web

PATH = "/user_management/authenticate"


class Next(StrEnum):
    """What becomes of one request."""

    SLOW = "slow"  # a good answer, after a while
    FAILS = "fails"  # 500, before anything is done
    FAILS_LATE = "fails late"  # 500, and the token is spent
    HANGS = "hangs"
    CUTS = "cuts"  # the token is spent, and the connection cut
    SENDS_AWAY = "sends away"
    IS_HUGE = "is huge"
    DENIES_CLIENT = "denies client"
    KEEPS_TOKEN = "keeps token"


@dataclass
class FakeIdentityProvider:
    """Begins with one good refresh token. `reused` counts those that came again after they were spent."""

    good: str = "rt-0"
    life_s: int | None = 8 * 3600
    slow_s: float = 0.05
    url: str = ""
    forms: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    spent: set[str] = field(default_factory=set)
    reused: int = 0
    answered: int = 0
    coming: list[Next] = field(default_factory=list)
    number: int = 0

    @property
    def access_token(self) -> str:
        """The newest."""
        return f"at-{self.number}"

    @property
    def asked_with(self) -> list[str]:
        return [form["refresh_token"] for form in self.forms]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        match self.coming.pop(0) if self.coming else None:
            case Next.FAILS:
                return web.Response(status=500, text=form["refresh_token"])
            case Next.FAILS_LATE:
                self.renew(form)
                return web.Response(status=500)
            case Next.HANGS:
                await asyncio.sleep(3600)
            case Next.CUTS:
                self.renew(form)
                assert request.transport is not None
                request.transport.abort()
            case Next.SENDS_AWAY:
                return web.Response(status=307, headers={"location": self.url})
            case Next.IS_HUGE:
                return web.Response(body=b" " * 1_000_000)
            case Next.DENIES_CLIENT:
                return web.json_response({"error": "invalid_client", "error_description": "canary"}, status=401)
            case Next.KEEPS_TOKEN:
                self.number += 1
                return web.json_response({"access_token": self.access_token})
            case Next.SLOW:
                await asyncio.sleep(self.slow_s)
        return self.renew(form)

    def renew(self, form: dict[str, str]) -> web.Response:
        token = form.get("refresh_token", "")
        if token != self.good or form.get("grant_type") != "refresh_token" or not form.get("client_id"):
            self.reused += token in self.spent
            return web.json_response({"error": "invalid_grant", "error_description": f"{token} canary"}, status=400)
        self.spent.add(token)
        self.number += 1
        self.answered += 1
        self.good = f"rt-{self.number}"
        answer: dict[str, Any] = {"access_token": self.access_token, "refresh_token": self.good, "user": {}}
        if self.life_s is not None:
            answer["expires_in"] = self.life_s
        return web.json_response(answer)


@asynccontextmanager
async def identity_provider() -> AsyncIterator[FakeIdentityProvider]:
    provider = FakeIdentityProvider()
    application = web.Application()
    application.router.add_post(PATH, provider.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
        yield provider
    finally:
        await runner.cleanup()
