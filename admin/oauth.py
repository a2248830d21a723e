"""The OAuth credential: an access token that is kept fresh with refresh tokens, of which each can be used once.

Where it comes from, in order: `credentials.refresh_token` begins a chain (`rules/oauth.py`), else `auth.json` does.
Where the chain stands lies in SQL, for all control planes, and in `auth.json`, for other programs and for the case that
SQL cannot be written. `look` is called every few seconds; what it does:

1. It reads where the chain stands, what the sources say, and whether upstreams refuse the access token (401).
2. If a refresh is due, or the token is refused, it takes the lock, reads again, for another may have done it meanwhile,
   and asks the provider.
3. What came is written to `auth.json` and then to SQL, before anybody uses it: the answer has spent the refresh token
   that was sent, so whoever loses the next one has lost the chain. The file is first, as it is quick and always there;
   SQL is written until it succeeds, under the lock, so that nobody sends the spent one.
4. The access token that is in SQL is published. If anything went wrong, that is the old one.

A process that dies between the provider's answer and step 3 has lost the next refresh token, and nothing can be done
about that but to send the last one again: a provider that allows for lost answers takes it, another one refuses, which
is told. If it dies within step 3, the chain goes on from the file (`overtaken`). One that is only told to end takes a
few seconds to come to the end of step 3.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from admin.oauth_sources import Sources
from admin.redis_lock import RedisLock
from admin.rules import oauth
from admin.rules.oauth import Refusal, Renewed, State
from admin.rules.oauth_attempts import Attempts, Tokens
from admin.rules.oauth_refusals import Refusals

log = logging.getLogger("relaygate")

LOOK_S = 5.0
LOCK_MS = 60_000
"""Three times as long as the provider is waited for; and it is prolonged."""
SAVE_AGAIN_S = 1.0
SAVE_AGAIN_S_MAX = 30.0
FINISH_S = 4.0
"""For a refresh that has begun when the control plane is told to end."""

Publish = Callable[[str | None], Awaitable[object]]
"""Has all workers use this access token, or none. Asked again for the same one where it raised."""


class OAuthStore(Protocol):
    """Where the chain stands, for all control planes."""

    async def load(self) -> State | None: ...
    async def save(self, state: State, /) -> None: ...

    async def refusals(self) -> int:
        """How often upstreams have refused an access token, as far as workers have told."""


class Endpoint(Protocol):
    async def refresh(self, refresh_token: str, /) -> Renewed | Refusal: ...


class Health(StrEnum):
    OFF = "off"  # there is no source
    OK = "ok"
    FAILING = "failing"


class Standing(NamedTuple):
    """How it goes, since when and why so. Nothing of it is secret. Times in seconds since 1970."""

    health: Health
    since_s: int
    next_refresh_s: int | None = None
    reason: str = ""


class OAuth:
    """Keeps the access token fresh. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(
        self,
        sources: Sources,
        store: OAuthStore,
        endpoint: Endpoint,
        lock: RedisLock,
        publish: Publish,
        now_ms: Callable[[], int],
    ) -> None:
        self._sources = sources
        self._store = store
        self._endpoint = endpoint
        self._lock = lock
        self._publish = publish
        self._now_ms = now_ms
        self._attempts = Attempts()
        self._refusals = Refusals()
        self._published: tuple[str | None] | None = None
        self.standing = Standing(Health.OFF, now_ms() // 1000)

    async def look(self) -> None:
        """Does what there is to do. Raises StoreUnavailable, DatabaseDown and what `publish` raises."""
        try:
            stored = await self._store.load()
            state = self._sources.chosen(stored)
            if state is None:
                await self._go_without(stored)
                return
            if stored is not None and stored.access_token is not None:
                self._refusals.note(stored, await self._store.refusals(), self._now_ms())
            if _is_news(state, stored) or self._is_to_refresh(state):
                stored = await _to_its_end(self._work(stored))
            if stored is not None and stored.access_token is not None:
                if not self._is_due(stored):  # else somebody may be writing the next one just now
                    self._sources.write(stored)
                await self._tell_workers(stored.access_token)
            self._take_stock(stored)
        finally:
            self._sources.tell()

    async def _work(self, stored: State | None) -> State | None:
        """Does what only one may do at a time, if nobody does; returns what is stored afterwards."""
        async with self._lock.held() as is_held:
            if not is_held:
                return stored
            stored = await self._store.load()
            state = self._sources.chosen(stored)
            if state is None:
                return stored
            if _is_news(state, stored):
                await self._store.save(state)
                log.info("oauth: goes on with what %s says", self._sources.place)
                stored = state
            return await self._refresh(state, stored) if self._is_to_refresh(state) else stored

    async def _refresh(self, state: State, stored: State | None) -> State | None:
        """Asks the provider; returns what is stored afterwards."""
        tokens = self._tokens(state)
        answer = await self._ask(state)
        goes_on = oauth.overtaken(state, self._sources.kept())
        if isinstance(answer, Refusal) and answer.is_spent and goes_on is not None:
            log.warning("oauth: %s; trying the one of %s", answer.reason, self._sources.place)
            state, answer = goes_on, await self._ask(goes_on)
        if isinstance(answer, Refusal):
            self._attempts.failed(tokens, answer, self._now_ms())
            self._note(Health.FAILING, answer.reason)
            return stored
        renewed = oauth.after(state, answer, self._now_ms())
        await self._save(renewed, state if stored is None else stored)
        return renewed

    async def _ask(self, state: State) -> Renewed | Refusal:
        if state.refresh_token is None:
            return Refusal(oauth.NO_TOKEN, is_final=True, is_spent=True)
        return await self._endpoint.refresh(state.refresh_token)

    async def _save(self, state: State, before: State) -> None:
        """Stores what must not be lost. Returns once it is in SQL, however long that takes."""
        pause_s = SAVE_AGAIN_S
        while True:
            self._sources.write(state, before)
            try:
                await self._store.save(state)
            except Exception as error:
                if pause_s == SAVE_AGAIN_S:
                    log.error("oauth: the next refresh token is not stored yet: %s", error)  # noqa: TRY400 - a line
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, SAVE_AGAIN_S_MAX)
            else:
                if pause_s > SAVE_AGAIN_S:
                    log.warning("oauth: the next refresh token is stored")
                return

    async def _go_without(self, stored: State | None) -> None:
        """There is no source here. What another machine keeps fresh is left alone."""
        if self._sources.problem:
            self._stand(Health.FAILING, self._sources.problem)  # the file's problem is told by itself
            return
        is_over = stored is not None and stored.expires_at_ms <= self._now_ms()
        if self.standing.health is not Health.OFF or is_over:
            await self._tell_workers(None)
        self._note(Health.OFF, "")

    async def _tell_workers(self, access_token: str | None) -> None:
        if self._published != (access_token,):
            await self._publish(access_token)
            self._published = (access_token,)

    def _tokens(self, state: State) -> Tokens:
        """What the outcome of asking depends on."""
        kept = self._sources.kept()
        return state.refresh_token, None if kept is None else kept.refresh_token

    def _is_due(self, state: State) -> bool:
        return oauth.is_due(state, self._now_ms()) or (
            state.refresh_token is not None and self._refusals.hold_of(state)
        )

    def _is_to_refresh(self, state: State) -> bool:
        return self._is_due(state) and self._attempts.may(self._tokens(state), self._now_ms())

    def _take_stock(self, stored: State | None) -> None:
        """Notes how it goes: well, where the chain to go on with is stored and fresh, whoever made it so."""
        if stored is not None and stored == self._sources.chosen(stored) and not self._is_due(stored):
            self._attempts = Attempts()
            self._note(Health.OK, "")
            self.standing = self.standing._replace(next_refresh_s=oauth.due_at_ms(stored) // 1000)
        elif self._attempts.refusal is not None:
            self.standing = self.standing._replace(next_refresh_s=self._attempts.next_ms // 1000)

    def _note(self, health: Health, reason: str) -> None:
        """Logs a line where this is news."""
        if not self._stand(health, reason):
            return
        if health is Health.FAILING:
            log.error("oauth: not refreshed, what access token there is stays in use: %s", reason)
        else:
            log.info("oauth: %s", "ok" if health is Health.OK else "there is no refresh token any more")

    def _stand(self, health: Health, reason: str) -> bool:
        """Returns whether this is news."""
        before = self.standing
        if (health, reason) == (before.health, before.reason):
            return False
        since_s = before.since_s if health is before.health else self._now_ms() // 1000
        self.standing = Standing(health, since_s, None, reason)
        return True


def _is_news(state: State, stored: State | None) -> bool:
    """Whether a source has an access token that is not stored."""
    return state != stored and state.access_token is not None


async def _to_its_end(work: Coroutine[Any, Any, State | None]) -> State | None:
    """Awaits it; if cancelled meanwhile, for FINISH_S more: an answer that is on its way must not be lost."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    end_s: float | None = None
    while not task.done():
        try:
            await asyncio.wait([task], timeout=None if end_s is None else end_s - loop.time())
        except asyncio.CancelledError:
            end_s = end_s or loop.time() + FINISH_S
        if end_s is not None and loop.time() >= end_s:
            task.cancel()
            end_s = loop.time() + FINISH_S
    if end_s is not None:
        if not task.cancelled():
            task.exception()
        raise asyncio.CancelledError
    return task.result()
