"""The process group's decisions; what it does with signals is proved with real processes in tests/end_to_end."""

import gc
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from granian.constants import HTTPModes

from proxy import server as server_module
from proxy.app import Relay
from proxy.config import (
    Config,
    ConfigError,
    CredentialSource,
    HttpVersions,
    ListenerTls,
    LogLevel,
    Route,
    Server,
    UpstreamTls,
)
from proxy.server import (
    BACKPRESSURE_MARGIN,
    AppLoader,
    ProcessGroup,
    check_address,
    fixed_at_start,
    http_mode,
    listener,
    raise_descriptor_limit,
)
from proxy.worker_group import Listener

TLS = ListenerTls(certificate="a.crt", key="a.key")


# ---- the address ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_free_address_is_good_and_left_free(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        port = probe.getsockname()[1]
    check_address("server", host, port)
    check_address("server", host, port)


def test_who_looks_at_an_address_takes_no_connection_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would answer it, and its client would be reset."""

    def listen(*_: Any) -> None:
        raise AssertionError("somebody listens")

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setattr(socket.socket, "listen", listen)
    check_address("server", "127.0.0.1", port)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_busy_port_is_told_even_if_its_owner_would_share_it(monkeypatch: pytest.MonkeyPatch, *, reuse: bool) -> None:
    monkeypatch.setattr(server_module, "LET_GO_S", 0)
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            check_address("server", "127.0.0.1", port)
    assert str(caught.value) == f"server: 127.0.0.1:{port}: cannot listen here: already in use"


def test_an_address_that_is_let_go_in_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the workers of a parent that was killed."""
    busy = socket.create_server(("127.0.0.1", 0))
    port = busy.getsockname()[1]
    monkeypatch.setattr(time, "sleep", lambda _: busy.close())
    check_address("server", "127.0.0.1", port)
    assert busy.fileno() == -1


@pytest.mark.parametrize("host", ["192.0.2.1", "not an address"])
def test_an_address_that_is_not_ours_is_told_in_one_line(host: str) -> None:
    with pytest.raises(ConfigError, match=f"server: {host}:8000: cannot listen here: [A-Z]"):
        check_address("server", host, 8000)


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "tls", "mode"),
    [
        (HttpVersions.AUTO, None, HTTPModes.http1),
        (HttpVersions.AUTO, TLS, HTTPModes.auto),
        (HttpVersions.BOTH, None, HTTPModes.auto),
        (HttpVersions.BOTH, TLS, HTTPModes.auto),
        (HttpVersions.HTTP1, TLS, HTTPModes.http1),
        (HttpVersions.HTTP2, None, HTTPModes.http2),
    ],
)
def test_versions_of_http_have_granians_names(versions: HttpVersions, tls: ListenerTls | None, mode: HTTPModes) -> None:
    assert http_mode(versions, tls) is mode


@pytest.mark.parametrize(
    "change",
    [
        {"host": "::1"},
        {"port": 1},
        {"workers": 2},
        {"log_level": LogLevel.DEBUG},
        {"tracing": "http://127.0.0.1:4318"},
    ],
    ids=str,
)
def test_what_only_a_start_can_change_is_known(change: dict[str, Any]) -> None:
    config = Config()
    changed = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **change))
    assert fixed_at_start(changed) != fixed_at_start(config)
    assert listener(changed) == listener(config)


@pytest.mark.parametrize(
    "change", [{"http": HttpVersions.BOTH}, {"max_connections": 1}, {"header_timeout_s": 1.0}], ids=str
)
def test_what_workers_are_replaced_for_is_known(change: dict[str, Any]) -> None:
    changed = Config(server=Server(**change))
    assert listener(changed) != listener(Config())
    assert fixed_at_start(changed) == fixed_at_start(Config())


def test_a_worker_accepts_somewhat_more_than_it_serves() -> None:
    assert listener(Config(server=Server(max_connections=5))).connections_max == 5 + BACKPRESSURE_MARGIN


def test_routes_and_limits_change_without_new_workers() -> None:
    server = Server(drain_timeout_s=1, body_timeout_s=1, body_bytes_max=1, health_prefix=None, access_log=True)
    changed = Config(server=server, routes={"/a": Route(target="http://a")})
    assert listener(changed) == listener(Config())
    assert fixed_at_start(changed) == fixed_at_start(Config())


# ---- open files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits of open files, soft and hard."""
    limits = [256, 1000]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), list(new)))
    return limits


@pytest.mark.parametrize(("connections", "warns"), [(400, False), (900, True)])
def test_all_open_files_that_the_system_grants_are_used(
    limits: list[int], caplog: pytest.LogCaptureFixture, connections: int, *, warns: bool
) -> None:
    raise_descriptor_limit(connections)
    assert limits == [1000, 1000]
    assert bool(caplog.records) is warns


def test_without_a_limit_there_is_nothing_to_warn_of(limits: list[int], caplog: pytest.LogCaptureFixture) -> None:
    limits[1] = resource.RLIM_INFINITY
    raise_descriptor_limit(1_000_000)
    assert caplog.records == []


# ---- the parent process ---------------------------------------------------------------------------------------------


TO_ALL = [(signal.SIGHUP, "serving"), (signal.SIGHUP, "retired")]


class Told(ProcessGroup):
    """Notes what workers are told and replaced for, and has none."""

    def __init__(self, reload: Callable[[], Config], *, starts: bool = True) -> None:
        super().__init__(AppLoader(Config(), reload))
        self.wrks: list[Any] = ["serving"]
        self._retired: list[Any] = ["retired"]
        self.told: list[tuple[int, str]] = []
        self.replaced: list[Listener] = []
        self._starts = starts

    def _tell(self, signum: int, workers: Iterable[Any]) -> None:
        self.told += [(signum, worker) for worker in workers]

    def replace(self, listener: Listener) -> bool:
        self.replaced.append(listener)
        return self._starts


def test_a_reload_is_passed_on_and_replacements_get_the_new_configuration(caplog: pytest.LogCaptureFixture) -> None:
    new = Config(routes={"/a": Route(target="http://a")})
    parent = Told(lambda: new)
    parent._reload()
    assert (parent.told, parent.replaced) == (TO_ALL, [])
    assert parent._loader.config is new
    assert caplog.records == []


def test_a_reload_says_which_route_has_not_the_key_that_it_wants(caplog: pytest.LogCaptureFixture) -> None:
    fixed = Route(target="http://a", credential=CredentialSource.FIXED)
    Told(lambda: Config(routes={"/a": fixed}))._reload()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "requests of /a" in caplog.text


def test_whose_certificates_nobody_checks_is_said_when_that_begins(caplog: pytest.LogCaptureFixture) -> None:
    """Not at each reload after it."""
    lax = Route(target="https://a", tls=UpstreamTls(verify=False))
    configs = iter([Config(routes={"/a": lax}), Config(routes={"/a": lax, "/b": Route(target="http://b")})])
    parent = Told(lambda: next(configs))
    for _ in range(2):
        parent._reload()
    (line,) = caplog.records
    assert (line.levelno, line.getMessage().endswith("requests of /a")) == (logging.WARNING, True)


def test_a_reload_says_what_it_cannot_change(caplog: pytest.LogCaptureFixture) -> None:
    parent = Told(lambda: Config(server=Server(port=1)))
    parent._reload()
    assert parent.told == TO_ALL
    assert "next start" in caplog.text


def test_workers_are_replaced_for_a_new_listener(caplog: pytest.LogCaptureFixture) -> None:
    """And those that are retired read the configuration, for requests that may still come on their connections."""
    new = Config(server=Server(header_timeout_s=1))
    parent = Told(lambda: new)
    parent._reload()
    assert (parent.told, parent.replaced) == (TO_ALL[1:], [listener(new)])
    assert parent._loader.config is new
    assert caplog.records == []


def test_where_new_workers_do_not_start_the_configuration_stays(caplog: pytest.LogCaptureFixture) -> None:
    parent = Told(lambda: Config(server=Server(header_timeout_s=1)), starts=False)
    before = parent._loader.config
    parent._reload()
    assert (parent.told, len(parent.replaced)) == ([], 1)
    assert parent._loader.config is before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_the_handler_of_a_signal_only_wakes_the_main_loop() -> None:
    """It may have interrupted anything, a half-written log line included, so it reads and logs nothing itself."""

    def unexpected() -> Config:
        raise AssertionError("reloaded inside the handler")

    parent = Told(unexpected)
    parent.signal_handler_reload()  # type: ignore[no-untyped-call]
    parent.main_loop_interrupt.wait()
    assert parent.reload_signal


def test_a_reload_of_what_is_refused_reaches_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    def refused() -> Config:
        raise ConfigError("relaygate.yaml:1", "bad")

    parent = Told(refused)
    before = parent._loader.config
    parent._reload()
    assert (parent.told, parent.replaced) == ([], [])
    assert parent._loader.config is before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_each_worker_gets_an_application_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    loader = AppLoader(Config(), Config)
    assert isinstance(loader(), Relay)
    assert loader() is not loader()
