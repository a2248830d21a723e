"""Databases for a system under test that can be taken away from it for a while, for real."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from loadtests.changes import sqlite_locked
from loadtests.processes import free_port

KINDS = ("sqlite", "postgresql")
SUPERUSER = "postgres"
UNPRIVILEGED = "nobody"
PROGRAMS = ("initdb", "pg_ctl")


class Sql(NamedTuple):
    """`stopped` takes the database away for the time of a block."""

    url: str
    stopped: Callable[[], AbstractContextManager[None]]


@contextlib.contextmanager
def sql_that_stops(kind: str, directory: Path) -> Iterator[Sql]:
    """SQLite, locked by another process, or a PostgreSQL server of one's own, stopped and started again.

    Skips the test where PostgreSQL is not installed.
    """
    if kind == "sqlite":
        file = directory / "system.db"
        yield Sql(f"sqlite:///{file}", lambda: sqlite_locked(file))
        return
    with _postgresql() as server:
        yield Sql(server.url, server.stopped)


class Postgresql:
    """A server in a directory of its own, which belongs to the user that runs it: the server refuses root."""

    def __init__(self, programs: Path, directory: Path, user: str | None) -> None:
        self._programs = programs
        self._directory = directory
        self._user = user
        self._port = free_port()
        self.url = f"postgresql://{SUPERUSER}@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        self._run("initdb", "--auth=trust", f"--username={SUPERUSER}", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        options = f"-p {self._port} -h 127.0.0.1 -k '{self._directory}'"
        self._run("pg_ctl", "start", "--wait", "-l", str(self._directory / "server.log"), "-o", options)

    def stop(self) -> None:
        """As an operator does: it ends all connections and writes what it has."""
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._directory / "data", *arguments],
            cwd=self._directory,
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )


@contextlib.contextmanager
def _postgresql() -> Iterator[Postgresql]:
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="relaygate-postgresql-") as name:
        directory = Path(name)
        if user is not None:
            shutil.chown(directory, user)
        server = Postgresql(_programs(), directory, user)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """Where PostgreSQL's are: in PATH, or where Debian puts those of each version."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)])
    found = [shutil.which(program, path=path) for program in PROGRAMS]
    if None in found:
        pytest.skip(f"PostgreSQL is not installed: no {' and '.join(PROGRAMS)}")
    return Path(str(found[0])).parent
