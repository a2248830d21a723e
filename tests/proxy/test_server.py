"""The process group's decisions; what it does with signals is proved with real processes in tests/end_to_end."""

import gc
import logging
import resource
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from granian.constants import HTTPModes

from proxy import server as server_module
from proxy.app import Relay
from proxy.config import Config, ConfigError, HttpVersions, ListenerTls, LogLevel, Route, Server
from proxy.server import AppLoader, ProcessGroup, check_address, fixed_at_start, http_mode, raise_descriptor_limit

TLS = ListenerTls(certificate="a.crt", key="a.key")


# ---- the address ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_free_address_is_good_and_left_free(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        port = probe.getsockname()[1]
    check_address(host, port)
    check_address(host, port)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_busy_port_is_told_even_if_its_owner_would_share_it(*, reuse: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            check_address("127.0.0.1", port)
    assert str(caught.value) == f"server: 127.0.0.1:{port}: cannot listen here: already in use"


@pytest.mark.parametrize("host", ["192.0.2.1", "not an address"])
def test_an_address_that_is_not_ours_is_told_in_one_line(host: str) -> None:
    with pytest.raises(ConfigError, match=f"server: {host}:8000: cannot listen here: [A-Z]"):
        check_address(host, 8000)


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
        {"http": HttpVersions.BOTH},
        {"max_connections": 1},
        {"header_timeout_s": 1.0},
        {"log_level": LogLevel.DEBUG},
    ],
    ids=str,
)
def test_what_only_a_start_can_change_is_known(change: dict[str, Any]) -> None:
    config = Config()
    changed = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **change))
    assert fixed_at_start(changed) != fixed_at_start(config)


def test_a_certificate_is_fixed_at_the_start_and_routes_and_limits_are_not() -> None:
    assert fixed_at_start(Config(tls=TLS)) != fixed_at_start(Config())
    server = Server(drain_timeout_s=1, body_timeout_s=1, body_bytes_max=1, health_prefix=None, access_log=True)
    assert fixed_at_start(Config(server=server, routes={"/a": Route(target="http://a")})) == fixed_at_start(Config())


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


class Child:
    """A worker process that ends when it is told to, or does not."""

    def __init__(self, obeys: str) -> None:
        self._obeys = obeys
        self.told: list[str] = []
        self.interrupt_by_parent = False

    def tell(self, what: str) -> None:
        self.told.append(what)

    def terminate(self) -> None:
        self.tell("terminate")

    def kill(self) -> None:
        self.tell("kill")

    def join(self, _timeout_s: float) -> None:
        self.tell("join")

    def is_alive(self) -> bool:
        return self._obeys not in self.told

    def _id(self) -> int:
        return 2**30


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ProcessGroup]:
    monkeypatch.setattr(server_module, "LAST_WORDS_S", 0.05)

    def make(*children: Child, reload: Callable[[], Config] = Config) -> ProcessGroup:
        group: Any = ProcessGroup(AppLoader(Config(server=Server(drain_timeout_s=0.05)), reload))
        group.wrks = list(children)
        monkeypatch.setattr(group, "_tell", lambda number: [child.tell(str(int(number))) for child in group.wrks])
        made: ProcessGroup = group
        return made

    return make


@pytest.mark.parametrize(
    ("obeys", "told"),
    [
        ("terminate", ["terminate", "join"]),
        ("10", ["terminate", "10", "join"]),
        ("kill", ["terminate", "10", "kill", "join"]),
    ],
)
def test_workers_get_their_time_then_a_word_then_an_end(
    group: Callable[..., ProcessGroup], obeys: str, told: list[str]
) -> None:
    """C68."""
    child = Child(obeys)
    parent = group(child)
    parent._stop_workers()
    assert child.told == told
    assert parent.wrks == []


def test_a_reload_is_passed_on_and_replacements_get_the_new_configuration(
    group: Callable[..., ProcessGroup], caplog: pytest.LogCaptureFixture
) -> None:
    new = Config(server=Server(drain_timeout_s=0.05), routes={"/a": Route(target="http://a")})
    child = Child("1")
    parent = group(child, reload=lambda: new)
    parent._reload()
    assert child.told == ["1"]
    assert parent._loader.config is new
    assert caplog.records == []


def test_a_reload_says_what_it_cannot_change(
    group: Callable[..., ProcessGroup], caplog: pytest.LogCaptureFixture
) -> None:
    child = Child("1")
    group(child, reload=lambda: Config(server=Server(port=1)))._reload()
    assert child.told == ["1"]
    assert "next start" in caplog.text


def test_the_handler_of_a_signal_only_wakes_the_main_loop(group: Callable[..., ProcessGroup]) -> None:
    """It may have interrupted anything, a half-written log line included, so it reads and logs nothing itself."""

    def unexpected() -> Config:
        raise AssertionError("reloaded inside the handler")

    parent = group(reload=unexpected)
    parent.signal_handler_reload()  # type: ignore[no-untyped-call]
    parent.main_loop_interrupt.wait()
    assert parent.reload_signal


def test_a_reload_of_what_is_refused_reaches_no_worker(
    group: Callable[..., ProcessGroup], caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> Config:
        raise ConfigError("relaygate.yaml:1", "bad")

    child = Child("1")
    parent = group(child, reload=refused)
    before = parent._loader.config
    parent._reload()
    assert child.told == []
    assert parent._loader.config is before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_each_worker_gets_an_application_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    loader = AppLoader(Config(), Config)
    assert isinstance(loader(), Relay)
    assert loader() is not loader()
