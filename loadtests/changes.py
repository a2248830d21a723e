"""Everything that can change or die in `relaygate serve`, one after the other, while it has constant load.

    python -m loadtests.changes --edits 1000

Starts two upstreams and a system of two workers on SQLite, and prints what each step did to the requests and how long
it took until edits were visible again. Exit status: 1 where a request failed that did not sit in a killed worker, or
where p99 of the edits was over VISIBLE_P99_S. `tests/end_to_end/test_changes_under_load.py` asserts what does not
depend on the machine's speed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sqlite3
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import uvloop

from loadtests.edit_visibility import MAPPINGS, MOVING, Edited, EditVisibility, RefusedError, Target, edits, move
from loadtests.processes import Launch, exit_on_signals, family, free_port, is_alive, running
from loadtests.samples import percentile
from loadtests.steady_load import STEADY, Failure, Record, steady_load
from loadtests.upstreams import REPOSITORY

WORKERS = 2
EDITS_PER_S = 40
VISIBLE_P99_S = 0.1
LOOK_AGAIN_S = 0.01
RECOVERY_TIMEOUT_S = 30.0
REDIS = r"redis-server|valkey-server"
ADMIN = r"-m admin admin"
RELAY = r"-m admin proxy"


class Served(NamedTuple):
    """A running `relaygate serve`: its ports, its first process, the admin token, the authority of its certificate.

    Without an authority it is asked in clear text.
    """

    port: int
    admin_port: int
    pid: int
    token: str
    authority: str


class Step(NamedTuple):
    """What was done from when to when, and after how long it was over: the system as before, and an edit visible."""

    name: str
    began_s: float
    ended_s: float
    recovered_s: float


class Death(NamedTuple):
    """The end of a worker by SIGKILL. At `ended_s` the kernel had closed its connections."""

    worker: str
    killed_s: float
    ended_s: float


class Changes:
    """The steps, in any order, and what came of them."""

    def __init__(self, served: Served, targets: Sequence[Target]) -> None:
        self._served = served
        self._targets = targets
        tls = ssl.create_default_context(cafile=served.authority) if served.authority else None
        self.visibility = EditVisibility(served.port, served.admin_port, served.token, WORKERS, tls)
        self.edited: list[Edited] = []
        """What came of the edits of `edits`."""
        self.first_version = 0
        """The number of the configuration's version before the first of them."""
        self.made = 0
        """How many edits have been made, all in all."""
        self.moves = 0
        """Of these, how many have changed MOVING; so its next target has this number."""
        self.steps: list[Step] = []
        self.deaths: list[Death] = []
        self.refused_s = 0.0
        """How long it took until an edit was refused, without a database."""

    async def begin(self) -> None:
        """Waits for the admin API and for the workers."""
        async for _ in looks():
            with contextlib.suppress(OSError, EOFError):
                _, self.first_version = await self.mappings()
                break
        await self.visibility.watch_all()

    async def edits(self, count: int) -> None:
        """Makes edits of all kinds, EDITS_PER_S at most, each once the one before is visible in every worker."""
        began_s = due_s = monotonic()
        for edit in edits(0, count, self._targets):
            self.edited.append(await self.visibility.time_s(edit))
            self.made += 1
            due_s = max(due_s + 1 / EDITS_PER_S, monotonic())
            await asyncio.sleep(due_s - monotonic())
        self.moves = count
        self.steps.append(Step(f"{count} edits", began_s, monotonic(), 0.0))

    async def replace_certificate(self, put: Callable[[], object]) -> None:
        """Has the listener's certificate replaced by what `put` puts in its place, and waits until all use that."""
        before = self.visibility.certificates()
        began_s = monotonic()
        put()
        os.kill(self._served.pid, signal.SIGHUP)
        async for _ in looks():
            await self.visibility.ask_all()
            await self.visibility.watch_all()
            if not before & self.visibility.certificates():
                break
        await self._over("the certificate replaced", began_s)

    async def kill_worker(self) -> None:
        """Kills the youngest one, and waits for another in its place."""
        victim = family(self._served.pid, RELAY)[-1]
        killed_s = monotonic()
        os.kill(victim, signal.SIGKILL)
        await end_of(victim)
        ended_s = monotonic()
        async for _ in looks():
            if gone := await self.visibility.watch_all():
                break
        self.deaths.extend(Death(name, killed_s, ended_s) for name in gone)
        await self._over("a worker killed", killed_s)

    async def kill_admin(self) -> None:
        """Kills the admin app, and waits until it is back."""
        began_s = await self._kill(ADMIN)
        await self._over("the admin app killed", began_s)

    async def kill_redis(self) -> None:
        """Kills the embedded Redis. An edit is made at once, and is visible when there is another."""
        began_s = await self._kill(REDIS)
        await self._over("Redis killed", began_s)

    async def stop_sql(self, stopped: AbstractContextManager[object]) -> None:
        """Has an edit refused while the database is `stopped`, and waits until edits are made again."""
        began_s = monotonic()
        with stopped:
            await self._refused()
        back_s = monotonic()
        await self._over("SQL stopped", began_s, back_s)

    async def _refused(self) -> None:
        began_s = monotonic()
        try:
            await self._move()
        except RefusedError as error:
            if error.status != 503:
                raise
        else:
            raise AssertionError("an edit was made without a database")
        self.refused_s = monotonic() - began_s

    async def _kill(self, pattern: str) -> float:
        """A parent before its workers, or it would start others."""
        began_s = monotonic()
        pids = family(self._served.pid, pattern)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            await end_of(pid)
        return began_s

    async def _over(self, name: str, began_s: float, back_s: float | None = None) -> None:
        """The step is over when an edit is visible in every worker; until then the admin API may not answer."""
        async for _ in looks():
            try:
                await self._move()
            except (OSError, EOFError):
                continue
            except RefusedError as error:
                if error.status == 503:
                    continue
                raise
            break
        ended_s = monotonic()
        self.steps.append(Step(name, began_s, ended_s, ended_s - (back_s or began_s)))

    async def _move(self) -> None:
        await self.visibility.time_s(move(self.moves, self._targets))
        self.moves += 1
        self.made += 1

    async def mappings(self) -> tuple[dict[str, str], int]:
        """What the admin API has: targets by prefix, and the number of the configuration's version."""
        _, body = await self.visibility.admin("GET", MAPPINGS)
        found = json.loads(body)
        return found["mappings"], found["version"]

    def unexcused(self, record: Record) -> list[Failure]:
        """Failures of requests that did not sit in a worker that was killed.

        One did if that worker had answered on its connection; or, on a new connection, if it was sent before that
        worker's end. So a connection fails once at most.
        """
        return [failure for failure in record.failures if not any(sat_in(failure, death) for death in self.deaths)]


async def looks() -> AsyncIterator[None]:
    """Turns of looking whether something has come true. Raises TimeoutError."""
    end_s = monotonic() + RECOVERY_TIMEOUT_S
    while monotonic() < end_s:
        yield
        await asyncio.sleep(LOOK_AGAIN_S)
    raise TimeoutError


async def end_of(pid: int) -> None:
    async for _ in looks():
        if not is_alive(pid):
            break


def sat_in(failure: Failure, death: Death) -> bool:
    known = failure.worker == death.worker
    new = not failure.worker and failure.began_s <= death.ended_s
    return (known or new) and death.killed_s <= failure.ended_s


@contextlib.contextmanager
def upstreams(directory: Path) -> Iterator[list[Target]]:
    """Two that routes may lead to."""
    with contextlib.ExitStack() as stack:
        found = []
        for name in ("alpha", "beta"):
            port = free_port()
            command = [sys.executable, "-m", "loadtests.echo_upstream", str(port), name]
            stack.enter_context(running(Launch(command, port, directory=REPOSITORY), directory / f"{name}.log"))
            found.append(Target(name, f"http://127.0.0.1:{port}"))
        yield found


def configuration(targets: Sequence[Target]) -> dict[str, Any]:
    """The settings of a system that the load and the edits are for, without its ports."""
    server = {"workers": WORKERS, "allow_private_targets": True, "access_log": False}
    return {"server": server, "routes": dict.fromkeys((STEADY, MOVING), targets[0].url)}


@contextlib.contextmanager
def sqlite_locked(file: Path) -> Iterator[None]:
    """Holds the lock of SQLite's one writer, as a program that hangs in a transaction does."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


async def play(
    changes: Changes,
    count: int,
    stopped: AbstractContextManager[object],
    put_certificate: Callable[[], object] | None,
) -> None:
    """All steps; the certificate's only where there is one."""
    try:
        await changes.begin()
        await changes.edits(count)
        if put_certificate is not None:
            await changes.replace_certificate(put_certificate)
        await changes.kill_worker()
        await changes.kill_admin()
        await changes.kill_redis()
        await changes.stop_sql(stopped)
    finally:
        await changes.visibility.close()


def report(changes: Changes, record: Record) -> str:
    """The figures of a run, as a page in Markdown."""
    lines = [
        "| step | took | requests answered | failed | longest answer | edits visible again after |",
        "|---" * 6 + "|",
    ]
    for step in changes.steps:
        times = (step.began_s, step.ended_s)
        cells = (
            step.name,
            f"{step.ended_s - step.began_s:.1f} s",
            f"{record.answered_by(*times).total():,}",
            f"{len(record.failures_between(*times))}",
            f"{1000 * record.longest_s(*times):.0f} ms",
            f"{step.recovered_s:.2f} s" if step.recovered_s else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for what, times_s in (
        ("From an edit to its answer", [edited.answered_s for edited in changes.edited]),
        ("From an edit to every worker relaying by it", [edited.everywhere_s for edited in changes.edited]),
    ):
        p50, p99, most = (1000 * percentile(times_s, percent) for percent in (50, 99, 100))
        lines.append(f"{what}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {most:.0f} ms.")
    lines.append(f"An edit without a database was refused after {changes.refused_s:.1f} s.")
    unexcused = changes.unexcused(record)
    lines.append(
        f"{record.answered:,} requests were answered right, {record.failed} failed, "
        f"{len(unexcused)} of which did not sit in a killed worker."
    )
    lines.extend(str(failure) for failure in unexcused[:20])
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.changes", description=__doc__.partition("\n")[0])
    parser.add_argument("--edits", type=int, default=1000, help="how many (default: %(default)s)")
    count = parser.parse_args(argv).edits
    exit_on_signals()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relaygate-changes-")))
        targets = stack.enter_context(upstreams(directory))
        port, admin_port, token = free_port(), free_port(), secrets.token_hex(16)
        settings = configuration(targets)
        settings["server"]["port"] = port
        settings |= {"admin": {"port": admin_port}, "data_dir": str(directory / "data")}
        file = directory / "relaygate.yaml"
        file.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "admin", "serve", "--config", str(file)]
        launch = Launch(command, port, {"ADMIN_TOKEN": token}, REPOSITORY)
        system = stack.enter_context(running(launch, directory / "relaygate.log"))
        changes = Changes(Served(port, admin_port, system.session, token, ""), targets)
        with steady_load(port) as load:
            uvloop.run(play(changes, count, sqlite_locked(directory / "data" / "relaygate.db"), None))
            record = load.stop()
    print(report(changes, record))
    late = percentile([edited.everywhere_s for edited in changes.edited], 99) > VISIBLE_P99_S
    return 1 if late or changes.unexcused(record) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
