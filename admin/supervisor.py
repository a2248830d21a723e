"""One machine: starts the embedded Redis, the admin app and the relay, starts again what dies, and stops them in order.

The relay is stopped first, for it has clients; then the admin app, which takes what the relay's workers still had to
tell; the Redis that both use last. Each runs in a session of its own, so that Ctrl-C reaches only this process, and is
told to end by the kernel if this process is killed.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from admin.data_directory import data_directory
from admin.rules.restarts import Restarts
from proxy import logs
from proxy.config import Config, ConfigError
from proxy.parent_death import end_with_parent
from proxy.shared_state.embedded import EmbeddedRedis

log = logging.getLogger("relaygate")

REFUSED = 2
"""The exit status of a child that refused its settings, and said why."""
KILL_AFTER_S = 10.0
"""How long a child may outlive its drain before it is killed."""


class Child:
    """A process of ours that is kept alive until it is told to stop."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], stop_within_s: float) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._stop_within_s = stop_within_s
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()

    async def keep(self) -> int:
        """Runs it, and again whenever it dies. Returns the status with which all should end: 0 after `stop`.

        Settings that it refuses at its first start end all. Later they are a file that was broken meanwhile: the other
        children go on with what they have, and this one is tried until the file is mended.
        """
        restarts = Restarts()
        for start in itertools.count():
            born_s = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, start_new_session=True, preexec_fn=end_with_parent
            )
            status = await self._process.wait()
            if self._stop.is_set():
                return 0
            if status == REFUSED and start == 0:
                return REFUSED
            lived_s = time.monotonic() - born_s
            delay_s = restarts.patient_delay_s(lived_s) if status == REFUSED else restarts.delay_s(lived_s)
            if delay_s is None:
                log.error("%s died again (%s) and is given up", self.name, in_words(status))
                return 1
            log.error("%s died (%s), starting it again in %.1f s", self.name, in_words(status), delay_s)
            await asyncio.sleep(delay_s)
            if self._stop.is_set():
                return 0
        raise AssertionError

    def tell(self, number: signal.Signals) -> None:
        """Sends it a signal, if it lives."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """Ends it, and lets it finish what it has."""
        self._stop.set()
        self.tell(signal.SIGTERM)
        if self._process is None:
            return
        try:
            async with asyncio.timeout(self._stop_within_s):
                await self._process.wait()
        except TimeoutError:
            log.error("%s did not end and is killed", self.name)  # noqa: TRY400 - a line, not a traceback
            self.tell(signal.SIGKILL)
            await self._process.wait()


def in_words(status: int) -> str:
    """Returns how a process ended."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


async def supervise(config: Config, arguments: Sequence[str]) -> int:
    """Runs everything until a signal ends it; returns the exit status.

    `arguments` are the options that `relaygate serve` got; its children get them too. Raises ConfigError.
    """
    logs.start(config.server.log_level)
    directory = data_directory(config)
    environment = {**os.environ, "RELAYGATE_DATA_DIR": str(directory)}
    redis = None
    if config.redis.url is None:
        redis = EmbeddedRedis(directory / "redis")
        await redis.start()
        environment["RELAYGATE_REDIS_URL"] = redis.url
    admin = Child("the admin app", command("admin", arguments), environment, KILL_AFTER_S)
    proxy = Child("the relay", command("proxy", arguments), environment, config.server.drain_timeout_s + KILL_AFTER_S)
    children = (admin, proxy)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    kept: list[asyncio.Future[int]] = [ended, *(asyncio.ensure_future(child.keep()) for child in children)]
    if redis is not None:
        kept.append(asyncio.ensure_future(keep_redis(redis)))
    listen(ended, children, proxy)
    try:
        done, _ = await asyncio.wait(kept, return_when=asyncio.FIRST_COMPLETED)
        return max(one.result() for one in done)
    finally:
        await proxy.stop()
        await admin.stop()
        for one in kept:
            one.cancel()
        await asyncio.gather(*kept, return_exceptions=True)
        if redis is not None:
            await redis.stop()


def listen(ended: asyncio.Future[int], children: Sequence[Child], draining: Child) -> None:
    """Has SIGTERM and SIGINT complete `ended`; a second one goes to the child that drains. Passes SIGHUP on to all."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        if ended.done():
            draining.tell(signal.SIGTERM)
        else:
            ended.set_result(0)

    def reload() -> None:
        for child in children:
            child.tell(signal.SIGHUP)

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, end)
    loop.add_signal_handler(signal.SIGHUP, reload)


async def keep_redis(redis: EmbeddedRedis) -> int:
    """Starts the embedded Redis again whenever it dies. Returns 1 when that is given up."""
    restarts = Restarts()
    while True:
        born_s = time.monotonic()
        await redis.wait()
        delay_s = restarts.delay_s(time.monotonic() - born_s)
        if delay_s is None:
            log.error("the embedded Redis died again and is given up")
            return 1
        log.error("the embedded Redis died, starting it again in %.1f s", delay_s)
        await asyncio.sleep(delay_s)
        try:
            await redis.start()
        except ConfigError as error:  # one more death, which `wait` tells at once
            log.error("%s", error)  # noqa: TRY400 - a line, not a traceback


def command(plane: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "admin", plane, *arguments]
