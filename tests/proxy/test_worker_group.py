"""The parent of a group of workers: how it ends them, and rare turns of their start.

All else is proved with real processes in tests/end_to_end.
"""

import errno
import fcntl
import logging
import os
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from granian.constants import HTTPModes

from loadtests.processes import free_port
from proxy import worker_group
from proxy.config import ListenerTls
from proxy.granian_worker import FROM_PARENT
from proxy.listener_tls import LoadedTls
from proxy.worker_group import Listener, Starting, Wakeup, WorkerGroup
from tests.end_to_end.certificates import Certificates, Pair

LISTENER = Listener(HTTPModes.http1, 100, 30.0, None)


class Child:
    """A worker process that ends when it is told to, or does not."""

    def __init__(self, obeys: str, *told: str) -> None:
        self._obeys = obeys
        self.told = list(told)
        self.interrupt_by_parent = False

    def terminate(self) -> None:
        self.told.append("terminate")

    def kill(self) -> None:
        self.told.append("kill")

    def join(self, _timeout_s: float | None = None) -> None:
        self.told.append("join")

    def is_alive(self) -> bool:
        return self._obeys not in self.told

    def _id(self) -> int:
        return 2**30


class Group(WorkerGroup):
    def __init__(self, *children: Child) -> None:
        super().__init__("listening on", "127.0.0.1", 1, len(children), LISTENER)
        self.wrks: list[Any] = list(children)

    def drain_timeout_s(self) -> float:
        return 0.05

    def _tell(self, signum: int, workers: Iterable[Any]) -> None:
        for child in workers:
            child.told.append(str(int(signum)))


@pytest.fixture(autouse=True)
def _few_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group, "LAST_WORDS_S", 0.05)


@pytest.mark.parametrize(
    ("obeys", "told"),
    [
        ("terminate", ["terminate", "join"]),
        ("10", ["terminate", "10", "join"]),
        ("kill", ["terminate", "10", "kill", "join"]),
    ],
)
def test_workers_get_their_time_then_a_word_then_an_end(obeys: str, told: list[str]) -> None:
    """C68."""
    child, retired = Child(obeys), Child(obeys)
    parent: Any = Group(child)
    parent._retired = [retired]
    parent._stop_workers()
    assert child.told == told
    assert retired.told == told
    assert parent.wrks == []


def test_signals_at_once_are_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s: Iterator[float] = iter([100.0, 100.05, 100.1, 101.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times_s))
    parent = Group(Child("kill"))
    counts = []
    for _ in range(4):
        parent.signal_handler_interrupt()
        counts.append(parent._signals)
    assert counts == [1, 1, 1, 2]


def test_what_workers_are_started_with_is_granians_to_know() -> None:
    parent = Group(Child("kill"))
    assert (parent.http, parent.backpressure) == (HTTPModes.http1, 100)
    assert parent.http1_settings is not None
    assert parent.http1_settings.header_read_timeout == 30_000
    assert parent.ssl_ctx[0] is False


# ---- the main loop and the certificate -------------------------------------------------------------------------------


def test_the_main_loop_does_what_it_is_given_and_looks_round_when_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group, "LOOK_S", 0.01)
    done: list[str] = []

    def rest() -> None:
        done.append("rest")
        wakeup.set()

    wakeup = Wakeup(rest)
    wakeup.do(lambda: done.append("task"))
    wakeup.set()
    wakeup.wait()
    assert done == ["task"]
    wakeup.wait()
    assert done == ["task", "rest"]


class Renewing(Group):
    """Notes with which certificates its workers would be replaced."""

    def __init__(self, listener: Listener, *, starts: bool = True) -> None:
        super().__init__()
        self._use(listener)
        self._watch(listener)
        self.replaced: list[str] = []
        self._starts = starts

    def replace(self, listener: Listener) -> bool:
        assert listener.tls is not None
        self.replaced.append(listener.tls.fingerprint)
        if self._starts:
            self._use(listener)
            self._watch(listener)
        return self._starts


@pytest.fixture(name="certificates", scope="module")
def fixture_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="pair")
def fixture_pair(certificates: Certificates, tmp_path: Path) -> Pair:
    return put(certificates.good, Pair(tmp_path / "live.pem", tmp_path / "live.key"))


def put(source: Pair, place: Pair) -> Pair:
    place.certificate.write_bytes(source.certificate.read_bytes())
    place.key.write_bytes(source.key.read_bytes())
    return place


def made_of(pair: Pair) -> Listener:
    return LISTENER._replace(tls=LoadedTls(ListenerTls(certificate=str(pair.certificate), key=str(pair.key))))


def test_a_certificate_that_somebody_wants_reloaded_is_taken_at_once_and_once(
    certificates: Certificates, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """However many ask: all workers of a parent do."""
    caplog.set_level(logging.INFO)
    parent = Renewing(made_of(pair))
    parent._renew()
    assert parent.replaced == []
    put(certificates.client, pair)
    for _ in range(3):
        parent._renew()
        parent._look()
    fingerprint = LoadedTls(ListenerTls(certificate=str(pair.certificate), key=str(pair.key))).fingerprint
    assert parent.replaced == [fingerprint]
    assert [record.getMessage() for record in caplog.records] == [f"certificate reloaded: SHA-256 {fingerprint}"]


def test_a_certificate_that_somebody_wants_reloaded_and_is_none_is_told(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    parent = Renewing(made_of(pair))
    pair.key.unlink()
    parent._renew()
    assert parent.replaced == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_one_that_no_worker_starts_with_is_not_tried_again(
    certificates: Certificates, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    parent = Renewing(made_of(pair), starts=False)
    put(certificates.client, pair)
    for _ in range(4):
        parent._look()
    assert len(parent.replaced) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_in_clear_text_there_is_nothing_to_reload(caplog: pytest.LogCaptureFixture) -> None:
    parent = Renewing(LISTENER)
    parent._renew()
    parent._look()
    assert (parent.replaced, caplog.records) == ([], [])


# ---- signals --------------------------------------------------------------------------------------------------------


def test_a_signal_is_for_those_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retired worker may have ended long ago, and another process have its pid."""
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    living: Any = Child("kill")
    ended: Any = Child("kill", "kill")
    WorkerGroup._tell(Group(living), signal.SIGHUP, [ended, living])
    assert killed == [(2**30, signal.SIGHUP)]


# ---- the start ------------------------------------------------------------------------------------------------------


def serving(place: int, child: Any) -> Starting:
    """A worker that has said that it serves."""
    ready, told = os.pipe()
    os.write(told, b"1")
    os.close(told)
    return Starting(place, child, ready)


class Respawning(Group):
    """Its workers start at once. While one does, another one is killed, and Granian notes that."""

    def _start(self, place: int) -> Starting:
        self.interrupt_children.append(1 - place)
        return serving(place, Child("kill"))


def test_one_that_is_killed_while_another_starts_is_no_crash_loop() -> None:
    parent = Respawning(Child("kill", "kill"), Child("kill"))
    parent._respawn_workers([0], None, None)
    assert parent.interrupt_children == [1]
    assert parent.respawned_wrks == {}


def test_all_that_have_died_are_replaced_though_one_was_not_noted() -> None:
    """Granian clears its notes after it has read them, and forgets one that comes in between."""
    parent = Respawning(Child("kill", "kill"), Child("kill", "kill"))
    parent._respawn_workers([0], None, None)
    assert [child.told for child in parent.wrks] == [[], []]


def test_one_that_does_not_come_to_serve_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would serve later, and nobody would hear of its death."""
    monkeypatch.setattr(worker_group, "START_TIMEOUT_S", 0)
    slow: Any = Child("kill")
    parent: Any = Group(slow)
    ready, told = os.pipe()
    assert parent._await([Starting(0, slow, ready)]) == [0]
    os.close(told)
    assert slow.told == ["kill", "join"]
    assert parent.interrupt_children == [0]


def test_descriptors_may_be_many() -> None:
    """Of several hundred workers; `select` takes none from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    child: Any = Child("kill")
    one = serving(0, child)
    high = fcntl.fcntl(one.ready, fcntl.F_DUPFD, 1024)
    os.close(one.ready)
    parent: Any = Group(child)
    assert parent._failed([one._replace(ready=high)]) == []
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_process_to_be_had_the_workers_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    old = Child("kill")
    parent: Any = Group(old)
    parent.bind_port = free_port()
    parent._init_shared_socket()
    parent._load_app = None
    monkeypatch.setattr(Group, "_tell", WorkerGroup._tell)
    monkeypatch.setattr(os, "fork", fork)
    assert not parent.replace(LISTENER)
    assert parent.wrks == [old]
    assert old.told == []
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & FROM_PARENT
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
