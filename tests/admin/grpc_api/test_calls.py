"""Who may make a call, and how one ends."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from admin.answers import Refusal, too_many_attempts
from admin.database import DatabaseDown
from admin.grpc_api import management_pb2 as pb
from admin.grpc_api.calls import peer_address, refusal_of
from admin.rules import tokens
from proxy.rules.attempts import PER_ADDRESS
from proxy.shared_state.breaker import StoreUnavailable
from tests.admin.api import TOKEN
from tests.admin.grpc_api.service import BEARER, Caller, Service, calling, running
from tests.end_to_end.waiting import eventually

CHOSEN = "a word that somebody chose"
CHOSEN_HASH = tokens.digest(CHOSEN, b"\x07" * tokens.SALT_BYTES)
REQUEST = pb.GetServerStatsRequest()


def failing(service: Service, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    """Has the call that tests make fail."""

    async def fail() -> None:
        raise raised

    monkeypatch.setattr(service.management, "server_stats", fail)


def refused(call: Caller, metadata: Any) -> Any:
    return call.refused("MonitorService", "GetServerStats", REQUEST, metadata)


@pytest.mark.parametrize("metadata", [BEARER, (("authorization", f"bearer  {TOKEN}"),), (("x-admin-key", TOKEN),)])
def test_the_token_opens_it_in_either_field(call: Caller, metadata: Any) -> None:
    assert call("MonitorService", "GetServerStats", REQUEST, metadata).version


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", TOKEN),),
        (("authorization", "Bearer"),),
        (("authorization", f"Bearer {TOKEN}x"),),
        (("x-admin-key-bin", TOKEN.encode()),),
        (("cookie", f"relaygate={TOKEN}"),),
    ],
)
@pytest.mark.usefixtures("service")
def test_anything_else_does_not(call: Caller, metadata: Any) -> None:
    error = refused(call, metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(error.trailing_metadata())["www-authenticate"] == "Bearer"


@pytest.fixture
def guarded() -> Iterator[Service]:
    """A service whose token could be guessed, behind a proxy; one more wrong token from 192.0.2.1 is one too many."""
    with running(token_hash=CHOSEN_HASH, peer="127.0.0.1", trusted_proxies=["127.0.0.1"]) as service:
        attempts = service.client.app.state.authentication._attempts
        for _ in range(PER_ADDRESS - 1):
            attempts.failed("192.0.2.1", time.monotonic())
        yield service


def test_wrong_tokens_count_whichever_way_they_come_in(guarded: Service) -> None:
    wrong = {"x-admin-key": "wrong", "x-forwarded-for": "192.0.2.1"}
    with calling(guarded.port) as call:
        assert refused(call, tuple(wrong.items())).code() is grpc.StatusCode.UNAUTHENTICATED
        error = refused(call, tuple(wrong.items()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(error.trailing_metadata())["retry-after"]) > 0
        assert guarded.client.get("/api/versions", headers=wrong).status_code == 429
        right = (("x-admin-key", CHOSEN), ("x-forwarded-for", "192.0.2.2"))
        assert call("MonitorService", "GetServerStats", REQUEST, right).version, "another's address has its own count"


def test_the_log_of_actions_has_the_address(service: Service, call: Caller) -> None:
    call("ConfigService", "ReloadSSL", pb.ReloadSSLRequest())
    (action,) = service.memory.actions.actions
    assert (action.actor, action.address) == ("token", "127.0.0.1")


@pytest.mark.parametrize(
    ("raised", "details"),
    [
        (DatabaseDown("sqlite", OSError("secret")), "The database cannot be reached."),
        (StoreUnavailable("secret"), "Redis cannot be reached."),
    ],
)
def test_what_is_away_is_told(
    service: Service, call: Caller, monkeypatch: pytest.MonkeyPatch, raised: Exception, details: str
) -> None:
    failing(service, monkeypatch, raised)
    error = refused(call, BEARER)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, details)


def test_what_is_not_foreseen_is_told_in_the_log_and_not_to_the_client(
    service: Service, call: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing(service, monkeypatch, RuntimeError("secret"))
    with caplog.at_level(logging.ERROR, "relaygate"):
        error = refused(call, BEARER)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("a gRPC call failed: RuntimeError at failing.<locals>.fail:")


def test_an_edit_is_done_whole_though_its_client_leaves(
    service: Service, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    remove = service.management.remove_backend

    async def slow(*names: str) -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait)
        await remove(*names)

    monkeypatch.setattr(service.management, "remove_backend", slow)
    request = pb.RemoveBackendRequest(upstream="default", backend_id="one")
    future = call.future("BackendService", "RemoveBackend", request)
    assert begun.wait(5)
    future.cancel()
    assert call("MonitorService", "GetServerStats", REQUEST).version
    go_on.set()
    eventually(lambda: service.outcomes() == [("backend.remove", "default/one", "done")])
    assert service.ids() == ["two"]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:80", "192.0.2.1"),
        ("ipv6:[2001:db8::1]:80", "2001:db8::1"),
        ("ipv6:%5B2001:db8::1%5D:80", "2001:db8::1"),
        ("unix:", "local"),
        ("", "local"),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str) -> None:
    assert peer_address(peer) == address


def test_a_refusal_stays_what_it_is() -> None:
    refusal: Refusal = too_many_attempts(3)
    assert refusal_of(refusal) is refusal
