"""The supervisor: what it does when its children die, refuse, or are told to stop. The children are shell scripts."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin import supervisor
from admin.rules import restarts
from proxy.config import Config, ConfigError, Redis, Server
from proxy.shared_state.embedded import EmbeddedRedis
from tests.redis_servers import program, until

STEADY = "trap 'echo term >> $0.log; exit 0' TERM; trap 'echo hup >> $0.log' HUP; echo up >> $0.log; "
STEADY += "while :; do sleep 0.02; done"
STUBBORN = "trap '' TERM; echo up >> $0.log; while :; do sleep 0.02; done"
DYING = "echo up >> $0.log; exit 3"
REFUSING = "echo up >> $0.log; exit 2"


class Scripts:
    """What the children run, and what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.admin, self.proxy = STEADY, STEADY

    def command(self, plane: str, _arguments: object) -> list[str]:
        return ["/bin/sh", "-c", {"admin": self.admin, "proxy": self.proxy}[plane], str(self.folder / plane)]

    def said(self, plane: str) -> list[str]:
        file = self.folder / f"{plane}.log"
        return file.read_text().split() if file.exists() else []

    async def both_say(self, word: str) -> None:
        async def said() -> bool:
            return all(word in self.said(plane) for plane in ("admin", "proxy"))

        await until(said)


@pytest.fixture(name="scripts")
def fixture_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    scripts = Scripts(tmp_path)
    monkeypatch.setattr(supervisor, "command", scripts.command)
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 0.001)
    return scripts


def supervised(scripts: Scripts, story: Callable[[], Coroutine[Any, Any, None]], url: str | None = "unix:///x") -> int:
    """The exit status of a supervisor while which `story` is told; with a Redis of others unless `url` is None."""

    async def main() -> int:
        config = Config(server=Server(drain_timeout_s=0), redis=Redis(url=url), data_dir=str(scripts.folder / "data"))
        telling = asyncio.create_task(story())
        async with asyncio.timeout(30):
            status = await supervisor.supervise(config, ())
        await telling
        return status

    return asyncio.run(main())


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def nothing() -> None:
    pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_planes_and_it_with_0(scripts: Scripts, number: signal.Signals) -> None:
    async def story() -> None:
        await scripts.both_say("up")
        tell(number)

    assert supervised(scripts, story) == 0
    assert scripts.said("proxy") == scripts.said("admin") == ["up", "term"]


def test_a_hangup_reaches_both_planes(scripts: Scripts) -> None:
    async def story() -> None:
        await scripts.both_say("up")
        tell(signal.SIGHUP)
        await scripts.both_say("hup")
        tell(signal.SIGTERM)

    assert supervised(scripts, story) == 0


@pytest.mark.parametrize(("dying", "other"), [("admin", "proxy"), ("proxy", "admin")])
def test_a_child_that_always_dies_is_given_up_and_the_other_is_stopped(
    scripts: Scripts, dying: str, other: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 0.02)
    setattr(scripts, dying, DYING)
    assert supervised(scripts, nothing) == 1
    assert scripts.said(dying) == ["up"] * restarts.DEATHS_MAX
    assert scripts.said(other) == ["up", "term"]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == restarts.DEATHS_MAX
    assert messages[0].endswith("died (status 3), starting it again in 0.0 s")
    assert messages[-1].endswith("died again (status 3) and is given up")


@pytest.mark.parametrize("refusing", ["admin", "proxy"])
def test_a_child_that_refuses_its_settings_ends_everything_with_2(
    scripts: Scripts, refusing: str, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(scripts, refusing, REFUSING)
    assert supervised(scripts, nothing) == 2
    assert scripts.said(refusing) == ["up"]
    assert caplog.records == [], "the child has said why"


@pytest.mark.parametrize(("refusing", "other"), [("admin", "proxy"), ("proxy", "admin")])
def test_a_child_that_refuses_its_settings_later_is_tried_until_they_are_mended(
    scripts: Scripts, refusing: str, other: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was broken after the start takes nothing down, however long it stays so."""
    monkeypatch.setattr(restarts, "LONGEST_DELAY_S", 0.01)
    refusals = 2 * restarts.DEATHS_MAX
    script = "echo up >> $0.log; n=$(wc -l < $0.log); "
    script += f"if [ $n = 1 ]; then exit 3; fi; if [ $n -le {refusals + 1} ]; then exit 2; fi; " + STEADY
    setattr(scripts, refusing, script)

    async def story() -> None:
        async def mended() -> bool:
            return len(scripts.said(refusing)) > refusals + 2  # it says so once more when it is steady

        await until(mended, 20)
        tell(signal.SIGTERM)

    assert supervised(scripts, story) == 0
    assert scripts.said(other) == ["up", "term"]
    assert caplog.text.count("died (status 2), starting it again") == refusals


def test_a_child_that_was_killed_is_started_again(scripts: Scripts, caplog: pytest.LogCaptureFixture) -> None:
    scripts.admin = "echo up >> $0.log; if [ $(wc -l < $0.log) = 1 ]; then kill -9 $$; fi; " + STEADY

    async def story() -> None:
        async def again() -> bool:
            return scripts.said("admin") == ["up", "up", "up"]

        await until(again)
        await scripts.both_say("up")
        tell(signal.SIGTERM)

    assert supervised(scripts, story) == 0
    assert "the admin app died (signal SIGKILL)" in caplog.text


def test_a_stop_while_a_child_waits_for_its_restart(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 15.0)
    scripts.admin = DYING
    told_s: list[float] = []

    async def story() -> None:
        async def waits() -> bool:
            return "starting it again" in caplog.text and scripts.said("proxy") == ["up"]

        await until(waits)
        told_s.append(time.monotonic())
        tell(signal.SIGHUP)
        tell(signal.SIGTERM)

    assert supervised(scripts, story) == 0
    assert time.monotonic() - told_s[0] < 5
    assert scripts.said("admin") == ["up"]
    assert scripts.said("proxy")[-1] == "term"


def test_a_second_signal_reaches_the_relay_alone(scripts: Scripts) -> None:
    """It drains as long as it is not told again."""
    scripts.proxy = "trap 'echo term >> $0.log; n=$((n+1)); if [ $n = 2 ]; then exit 0; fi' TERM; echo up >> $0.log; "
    scripts.proxy += "n=0; while :; do sleep 0.02; done"

    async def story() -> None:
        await scripts.both_say("up")
        tell(signal.SIGTERM)

        async def drains() -> bool:
            return scripts.said("proxy") == ["up", "term"]

        await until(drains)
        assert scripts.said("admin") == ["up"]
        tell(signal.SIGTERM)

    assert supervised(scripts, story) == 0
    assert scripts.said("proxy") == ["up", "term", "term"]
    assert scripts.said("admin") == ["up", "term"]


def test_a_child_that_does_not_end_is_killed(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "KILL_AFTER_S", 0.2)
    scripts.proxy = STUBBORN

    async def story() -> None:
        await scripts.both_say("up")
        tell(signal.SIGTERM)

    assert supervised(scripts, story) == 0
    assert [record.getMessage() for record in caplog.records] == ["the relay did not end and is killed"]
    assert scripts.said("admin") == ["up", "term"]


def test_a_program_that_cannot_be_started_stops_the_other(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(plane: str, arguments: object) -> list[str]:
        return ["/nowhere/program"] if plane == "admin" else scripts.command(plane, arguments)

    monkeypatch.setattr(supervisor, "command", command)
    with pytest.raises(FileNotFoundError):
        supervised(scripts, nothing)
    assert scripts.said("proxy") in ([], ["up"], ["up", "term"])


def pid_of_redis(scripts: Scripts) -> int:
    return int((scripts.folder / "data" / "redis" / "server.lock").read_text())


def test_the_embedded_redis_is_started_again_and_ends_last(scripts: Scripts, caplog: pytest.LogCaptureFixture) -> None:
    program()

    async def story() -> None:
        await scripts.both_say("up")
        killed = pid_of_redis(scripts)
        os.kill(killed, signal.SIGKILL)

        async def another() -> bool:
            text = (scripts.folder / "data" / "redis" / "server.lock").read_text()
            return text.isdigit() and int(text) != killed

        await until(another, 10)
        tell(signal.SIGTERM)

    assert supervised(scripts, story, url=None) == 0
    assert "the embedded Redis died, starting it again" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of_redis(scripts), 0)


def test_an_embedded_redis_that_starts_no_more_is_given_up_and_the_planes_are_stopped(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program()

    async def refuse(_: EmbeddedRedis) -> None:
        raise ConfigError("embedded redis", "no space is left")

    async def story() -> None:
        await scripts.both_say("up")
        monkeypatch.setattr(EmbeddedRedis, "start", refuse)
        os.kill(pid_of_redis(scripts), signal.SIGKILL)

    assert supervised(scripts, story, url=None) == 1
    assert caplog.text.count("embedded redis: no space is left") == restarts.DEATHS_MAX - 1
    assert "the embedded Redis died again and is given up" in caplog.text
    assert scripts.said("proxy") == scripts.said("admin") == ["up", "term"]


def test_children_get_the_options_and_where_redis_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert supervisor.command("proxy", ["--port", "1"]) == [sys.executable, "-m", "admin", "proxy", "--port", "1"]
    scripts = Scripts(tmp_path)
    scripts.proxy = 'echo "$RELAYGATE_DATA_DIR" "$RELAYGATE_REDIS_URL" >> $0.log; exit 2'
    monkeypatch.setattr(supervisor, "command", scripts.command)
    program()
    assert supervised(scripts, nothing, url=None) == 2
    data = tmp_path / "data"
    assert scripts.said("proxy") == [str(data), EmbeddedRedis(data / "redis").url]


def test_a_data_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigError, match=r"^data_dir: .*data: File exists$"):
        supervised(Scripts(tmp_path), nothing)


def test_how_a_process_ended_is_said_in_words() -> None:
    assert [supervisor.in_words(status) for status in (0, 3, -9)] == ["status 0", "status 3", "signal SIGKILL"]
