"""Constant load of idempotent requests, on connections that stay: `python -m loadtests.get_load PORT CONNECTIONS RATE`.

Each connection sends a GET with a path of its own, `RATE` times a second, to a proxy in front of `echo_upstream`s, and
notes when it was sent, how long the answer took, and which backend gave it. As any client does, it opens another
connection where it finds its own closed before it sends a request; what happens afterwards counts as failed. Nothing is
sent twice. One that waits for an answer sends nothing meanwhile: a second of silence of a backend is felt by as many
requests as there are connections, and not by those that would have been due.

    with get_load(port, 64, 25) as load: …
    record = load.stop()
"""

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic

import msgspec
import uvloop

from loadtests.keep_alive import Answer, KeepAlive, WrongAnswerError
from loadtests.upstreams import REPOSITORY

OK = 200
READY = b"ready\n"
ANSWER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2 * ANSWER_TIMEOUT_S


class LoadError(Exception):
    """The load ended badly, or did not end."""


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A request and what came of it. `began_s` is of `time.monotonic`, which all processes share.

    `backend` is who answered right; `fault` says what came instead, and is empty where the answer was right.
    """

    began_s: float
    took_s: float
    backend: str
    fault: str = ""

    @property
    def ended_s(self) -> float:
        return self.began_s + self.took_s


class Load:
    """The clients, and what they have recorded."""

    def __init__(self, port: int, connections: int, rate: float) -> None:
        self._port = port
        self._connections = connections
        self._interval_s = 1 / rate
        self._stopping = asyncio.Event()
        self.record: list[Asked] = []

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Asks until `stop`, and returns when every request has had its answer."""
        async with asyncio.TaskGroup() as clients:
            for number in range(self._connections):
                clients.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        wire: KeepAlive | None = None
        due_s = monotonic() + self._interval_s * number / self._connections
        while not self._stopping.is_set():
            # One that is late does not catch up: the load stays what it is.
            due_s = max(due_s + self._interval_s, monotonic())
            await asyncio.sleep(due_s - monotonic())
            await asyncio.sleep(0)  # the loop looks at its sockets: where it was late, a close may wait there
            if wire is not None and wire.ended:
                await wire.close()
                wire = None
            wire = await self._ask(number, wire)
            number += self._connections
        if wire is not None:
            await wire.close()

    async def _ask(self, number: int, wire: KeepAlive | None) -> KeepAlive | None:
        """One request and its answer; returns the connection for the next one, None where that is not to be used."""
        began_s = monotonic()
        backend = fault = ""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if wire is None:
                    wire = await KeepAlive.open(self._port)
                answer = await wire.ask(b"GET", b"/%d" % number)
            backend = backend_of(answer, number)
            fault = "" if backend else fault_of(answer)
        except (OSError, EOFError, WrongAnswerError) as error:
            fault = f"{type(error).__name__}: {error}"
            if wire is not None:
                await wire.close()
            wire = None
        self.record.append(Asked(began_s, monotonic() - began_s, backend, fault))
        return wire


def backend_of(answer: Answer, number: int) -> str:
    """Who answered; empty where it is not the answer of an `echo_upstream` to this very request."""
    named = re.fullmatch(rb"(\S+) GET /%d\n" % number, answer.body)
    return named[1].decode() if named and answer.status == OK else ""


def fault_of(answer: Answer) -> str:
    """What is wrong with it; of another status, its number says enough."""
    return f"status {answer.status}" if answer.status != OK else f"a wrong answer: {answer.body[:100]!r}"


class RunningLoad:
    """A load in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def stop(self) -> list[Asked]:
        """Returns all requests, in the order of their answers, once each has ended. Raises `LoadError`."""
        try:
            output, _ = self.process.communicate(timeout=STOP_TIMEOUT_S)
            return msgspec.json.decode(output, type=list[Asked])
        except (subprocess.TimeoutExpired, msgspec.DecodeError) as error:
            raise LoadError(f"the load did not end as it should: {type(error).__name__}") from error


@contextlib.contextmanager
def get_load(port: int, connections: int, rate: float) -> Iterator[RunningLoad]:
    """Load on a proxy, `rate` requests a second on each connection, once the clients are there. Raises `LoadError`."""
    command = [sys.executable, "-m", "loadtests.get_load", str(port), str(connections), str(rate)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline() != READY:
            raise LoadError("the load did not begin")
        yield RunningLoad(process)
    finally:
        process.kill()
        process.communicate()


async def main(port: int, connections: int, rate: float) -> None:
    load = Load(port, connections, rate)
    # The end of its input ends it, also when whoever started it was killed.
    asyncio.get_running_loop().add_reader(sys.stdin, load.stop)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    await load.run()
    sys.stdout.buffer.write(msgspec.json.encode(load.record))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
