"""How long it takes from an edit of the configuration to each worker relaying by it.

An edit goes to the admin API. From then on each worker is asked, on a connection that only it answers, until it answers
by the edit: each POLL_S, so that the asking costs the relay nothing to speak of. The times count from when the edit was
sent, so the transaction in SQL is in them.

    visibility = EditVisibility(port, admin_port, token, workers)
    await visibility.watch_all()
    times_s = [(await visibility.time_s(edit)).everywhere_s for edit in edits(0, 1000, targets)]
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any, NamedTuple

from loadtests.echo_upstream import echo
from loadtests.keep_alive import Answer, KeepAlive

POLL_S = 0.002
VISIBLE_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 60.0

MAPPINGS = "/api/mappings"
MOVING = "/moving"
"""The route that changes its target with every other edit. It must be there before the first."""


class Edit(NamedTuple):
    """A request to the admin API, and what the relay answers to GET `asked` once it is in use, and not before."""

    method: str
    path: str
    body: Any
    asked: str
    status: int
    echo: bytes | None
    """None where any body will do."""

    def seen_in(self, answer: Answer) -> bool:
        return answer.status == self.status and self.echo in (None, answer.body)


class Target(NamedTuple):
    """An `echo_upstream`."""

    name: str
    url: str


class Edited(NamedTuple):
    """An edit that was made: seconds from when it was sent to the API's answer and to each worker's first by it."""

    answered_s: float
    visible_s: dict[str, float]

    @property
    def everywhere_s(self) -> float:
        return max(self.visible_s.values())


class RefusedError(Exception):
    """The admin API did not make an edit."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body.decode(errors='replace')}")
        self.status = status


def move(number: int, targets: Sequence[Target]) -> Edit:
    """Gives MOVING another target: each has a base of its own, and the upstreams take turns."""
    return change(MOVING, number, targets)


def create(prefix: str, number: int, targets: Sequence[Target]) -> Edit:
    url, echoed = _leads_to(number, targets)
    return Edit("POST", MAPPINGS, {"prefix": prefix, "target": url}, f"{prefix}/x", 200, echoed)


def change(prefix: str, number: int, targets: Sequence[Target]) -> Edit:
    url, echoed = _leads_to(number, targets)
    return Edit("PUT", f"{MAPPINGS}{prefix}", {"target": url}, f"{prefix}/x", 200, echoed)


def delete(prefix: str) -> Edit:
    return Edit("DELETE", f"{MAPPINGS}{prefix}", None, f"{prefix}/x", 404, None)


def delete_many(prefixes: list[str]) -> Edit:
    return Edit("POST", f"{MAPPINGS}/batch-delete", {"prefixes": prefixes}, f"{prefixes[-1]}/x", 404, None)


def edits(first: int, count: int, targets: Sequence[Target]) -> Iterator[Edit]:
    """Every kind of edit in turn; half of them change MOVING. What they add they take away, if `count` is by tens."""
    for number in range(first, first + count):
        base = number // 10 * 10
        one, two, three = (f"/edited-{base + each}" for each in range(3))
        match number % 10:
            case 0:
                yield create(one, number, targets)
            case 2:
                yield change(one, number, targets)
            case 4:
                yield create(two, number, targets)
            case 6:
                yield delete_many([one, two])
            case 8:
                yield create(three, number, targets)
            case 9:
                yield delete(three)
            case _:
                yield move(number, targets)


def _leads_to(number: int, targets: Sequence[Target]) -> tuple[str, bytes]:
    """A target, and what it answers to GET `/x` behind the prefix."""
    name, url = targets[number % len(targets)]
    return f"{url}/v{number}", echo(name.encode(), b"GET", b"/v%d/x" % number)


class EditVisibility:
    """The admin API, and a connection to each worker of a relay."""

    def __init__(self, port: int, admin_port: int, token: str, workers: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._admin_port = admin_port
        self._fields = b"authorization: Bearer %b\r\ncontent-type: application/json\r\n" % token.encode()
        self._workers = workers
        self._tls = tls
        self._admin: KeepAlive | None = None
        self._watched: dict[str, KeepAlive] = {}
        self.asked = 0
        """How many of its requests the relay has answered."""

    async def time_s(self, edit: Edit) -> Edited:
        """Makes an edit and waits until every worker relays by it. Raises RefusedError, TimeoutError."""
        began_s = monotonic()
        done = asyncio.Event()
        watching = {name: asyncio.ensure_future(self._seen_s(wire, edit, done)) for name, wire in self._watched.items()}
        try:
            async with asyncio.timeout(VISIBLE_TIMEOUT_S):
                status, body = await self.admin(edit.method, edit.path, edit.body)
                answered_s = monotonic() - began_s
                if status // 100 != 2:
                    raise RefusedError(status, body)
                return Edited(answered_s, {name: await seen_s - began_s for name, seen_s in watching.items()})
        finally:
            done.set()
            await asyncio.gather(*watching.values(), return_exceptions=True)

    async def admin(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One request to the admin API. Raises OSError, EOFError where it does not answer."""
        if self._admin is not None and self._admin.ended:
            await self._admin.close()
            self._admin = None
        if self._admin is None:
            self._admin = await KeepAlive.open(self._admin_port, self._tls)
        content = b"" if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await self._admin.ask(method.encode(), path.encode(), content, self._fields)
        except BaseException:
            await self._admin.close()
            self._admin = None
            raise
        return answer.status, answer.body

    async def ask(self, path: str) -> Answer:
        """One request to the relay, on a connection of its own. Raises OSError, EOFError."""
        wire = await KeepAlive.open(self._port, self._tls)
        try:
            return await self._ask(wire, path)
        finally:
            await wire.close()

    async def watch_all(self) -> list[str]:
        """Finds a connection to each worker that it has none to; returns the names of those that are gone.

        Raises TimeoutError where there are not so many workers.
        """
        gone = [name for name, wire in self._watched.items() if wire.ended]
        for name in gone:
            await self._watched.pop(name).close()
        async with asyncio.timeout(VISIBLE_TIMEOUT_S):
            while len(self._watched) < self._workers:
                await self._find()
        return gone

    async def ask_all(self) -> None:
        """Asks each worker, so that one that is to end can say so. Raises OSError, EOFError where one has ended."""
        for wire in self._watched.values():
            await self._ask(wire, f"{MOVING}/x")

    def certificates(self) -> set[bytes]:
        """What its connections to workers were opened with."""
        return {wire.certificate for wire in self._watched.values()}

    async def _find(self) -> None:
        """The kernel picks the worker that a connection goes to."""
        try:
            wire = await KeepAlive.open(self._port, self._tls)
        except OSError:
            await asyncio.sleep(POLL_S)
            return
        with contextlib.suppress(OSError, EOFError):
            worker = (await self._ask(wire, f"{MOVING}/x")).worker
            if worker not in self._watched:
                self._watched[worker] = wire
                return
        await wire.close()
        await asyncio.sleep(POLL_S)

    async def _seen_s(self, wire: KeepAlive, edit: Edit, done: asyncio.Event) -> float:
        """When its worker first answered by an edit; or when the last answer came, once nobody waits for that."""
        async with asyncio.timeout(VISIBLE_TIMEOUT_S):
            while True:
                answer = await self._ask(wire, edit.asked)
                if edit.seen_in(answer) or done.is_set():
                    return monotonic()
                await asyncio.sleep(POLL_S)

    async def _ask(self, wire: KeepAlive, path: str) -> Answer:
        answer = await wire.ask(b"GET", path.encode())
        self.asked += 1
        return answer

    async def close(self) -> None:
        for wire in self._watched.values():
            await wire.close()
        if self._admin is not None:
            await self._admin.close()
