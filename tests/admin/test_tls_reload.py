"""Asking workers for the certificate, through a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from admin.tls_reload import SILENT_S, Reloaded, TlsReload, fingerprint_of
from proxy.config import ConfigError, ListenerTls
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import RELOAD_TLS, RELOAD_TLS_CHANNEL
from tests.admin.counted import NOW_S, worker
from tests.admin.memory import Worker, Workers
from tests.end_to_end.certificates import Certificates
from tests.redis_servers import DEADLINE_S, connected, server

OLD, NEW = "aa", "bb"


class Scene:
    """Workers that serve the old certificate, and whoever asks them for the new one."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.workers = Workers([living("a", OLD), living("b", OLD)])
        self.wanted = NEW

    async def reload(self, wait_s: float = DEADLINE_S) -> Reloaded:
        guard = Guard(self.client, Breaker(), DEADLINE_S)
        return await TlsReload(self.client, guard, self.workers, self.fingerprint, wait_s).reload()

    def fingerprint(self) -> str:
        if not self.wanted:
            raise ConfigError("tls.key", "the key of another certificate")
        return self.wanted


def living(name: str, tls: str, time_s: float = NOW_S, host: str = "host") -> Worker:
    return Worker(worker(name, tls=tls, time_s=time_s, host=host), alive=True)


def with_scene(directory: Path, story: Callable[[Scene], Awaitable[None]]) -> None:
    async def main(url: str) -> None:
        async with connected(url) as client:
            await story(Scene(client))

    with server(directory) as port:
        asyncio.run(main(f"redis://127.0.0.1:{port}"))


def test_it_is_done_when_as_many_workers_serve_it_as_were_asked(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        async with scene.client.pubsub() as channel:
            await channel.subscribe(RELOAD_TLS_CHANNEL)
            assert (await channel.get_message(timeout=DEADLINE_S))["type"] == "subscribe"
            asking = asyncio.create_task(scene.reload())
            assert (await channel.get_message(timeout=DEADLINE_S))["data"] == b"1"
            scene.workers.workers += [living("c", NEW), living("d", NEW)]  # the old ones have connections still
            assert await asking == Reloaded(2, 2)
        assert await scene.client.get(RELOAD_TLS) == b"1"

    with_scene(tmp_path, story)


def test_those_that_do_not_do_it_in_time_are_told(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.workers.workers[0] = living("a", NEW)
        assert await scene.reload(wait_s=0.1) == Reloaded(1, 2)
        scene.workers.workers = [living("a", NEW), living("ended", OLD, NOW_S - SILENT_S), living("far", NEW, 5.0, "x")]
        assert await scene.reload() == Reloaded(2, 2), "one that has ended is not waited for"
        scene.workers.workers = []
        assert await scene.reload() == Reloaded(0, 0)
        assert await scene.client.get(RELOAD_TLS) == b"3"

    with_scene(tmp_path, story)


def test_nobody_is_asked_for_files_that_cannot_be_used(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.wanted = ""
        with pytest.raises(ConfigError, match="another certificate"):
            await scene.reload()
        assert await scene.client.get(RELOAD_TLS) is None

    with_scene(tmp_path, story)


def test_the_fingerprint_is_of_what_the_files_hold_now(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    pair = certificates.issue("listener", "relay.test")
    fingerprint = fingerprint_of(ListenerTls(certificate=str(pair.certificate), key=str(pair.key)))
    before = fingerprint()
    certificates.issue("listener", "relay.test")
    assert len(before) == len(fingerprint()) == 64
    assert fingerprint() != before
    pair.key.write_bytes(certificates.good.key.read_bytes())
    with pytest.raises(ConfigError, match=f"{pair.key}: the key of another certificate"):
        fingerprint()
