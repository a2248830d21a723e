"""The listener, and the services that come with every gRPC server."""

import asyncio
import contextlib
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from admin import control_plane
from admin.grpc_api import management_pb2 as pb
from admin.grpc_api import server
from admin.grpc_api.server import NAMES, OPTIONS
from loadtests.processes import free_port
from proxy import server as proxy_server
from proxy.config import Config, ConfigError, Grpc, Redis
from tests.admin.admin_process import running as process
from tests.admin.grpc_api.service import BEARER, DEADLINE_S, Caller, Service, calling, running
from tests.end_to_end.certificates import Certificates, Pair
from tests.end_to_end.process_tree import descendants
from tests.end_to_end.waiting import eventually, never

STATS = ("MonitorService", "GetServerStats", pb.GetServerStatsRequest())
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def health_of(call: Caller) -> Any:
    return health_pb2_grpc.HealthStub(call.channel)


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    error: Any = caught.value
    code: grpc.StatusCode = error.code()
    return code


@pytest.mark.parametrize("name", ["", *NAMES])
def test_whether_it_is_well_anybody_may_ask(call: Caller, name: str) -> None:
    assert health_of(call).Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_S).status == SERVING


def reflected(
    call: Caller, request: reflection_pb2.ServerReflectionRequest, metadata: object = BEARER
) -> Iterator[Any]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(call.channel)
    answers: Iterator[Any] = stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=DEADLINE_S)
    return answers


def test_what_there_is_learns_who_has_the_token(call: Caller) -> None:
    (answer,) = reflected(call, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in answer.list_services_response.service}
    assert names == {*NAMES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    (answer,) = reflected(call, reflection_pb2.ServerReflectionRequest(file_containing_symbol=NAMES[0]))
    files = answer.file_descriptor_response.file_descriptor_proto
    assert pb.DESCRIPTOR.name in {FileDescriptorProto.FromString(file).name for file in files}


def test_what_there_is_nobody_else_learns(call: Caller) -> None:
    answers = reflected(call, reflection_pb2.ServerReflectionRequest(list_services=""), ())
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert code_of(caught) is grpc.StatusCode.UNAUTHENTICATED


def test_a_call_that_is_not_there(call: Caller) -> None:
    method: Any = call.channel.unary_unary("/relaygate.v1.ConfigService/Format")
    with pytest.raises(grpc.RpcError) as caught:
        method(b"", metadata=BEARER, timeout=DEADLINE_S)
    assert code_of(caught) is grpc.StatusCode.UNIMPLEMENTED


def test_who_only_connects_takes_no_more_than_a_share(service: Service, call: Caller) -> None:
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            for _ in range(dict(OPTIONS)["grpc.max_allowed_incoming_connections"])
        ]
        eventually(lambda: any(map(has_ended, connections)), what="the end of one connection")
        assert call(*STATS).version


def has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


# ---- TLS ------------------------------------------------------------------------------------------------------------


def put(source: Pair, place: Pair) -> None:
    shutil.copyfile(source.certificate, place.certificate)
    shutil.copyfile(source.key, place.key)


def shown(port: int) -> bytes:
    """The certificate, as PEM."""
    return ssl.get_server_certificate(("127.0.0.1", port)).encode()


def test_tls_with_a_certificate_that_is_renewed_while_it_serves(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(tmp_path / "live.pem", tmp_path / "live.key")
    renewed = certificates.issue("renewed", "127.0.0.1")
    put(certificates.good, pair)
    settings = Grpc(enabled=True, port=free_port(), certificate=str(pair.certificate), key=str(pair.key))
    with running(settings), calling(settings.port, certificates.ca) as call:
        assert call(*STATS).version
        assert shown(settings.port) in certificates.good.certificate.read_bytes()
        shutil.copyfile(renewed.certificate, pair.certificate)
        for _ in range(2):
            assert shown(settings.port) in certificates.good.certificate.read_bytes()
        lines = [record.message for record in caplog.records if "not loaded again" in record.message]
        assert len(lines) == 1
        assert "the key of another certificate" in lines[0]
        put(renewed, pair)
        assert shown(settings.port) in renewed.certificate.read_bytes()
        assert call(*STATS).version, "an open connection stays"


def test_who_speaks_clear_text_where_tls_is_wanted_is_refused(certificates: Certificates) -> None:
    pair = certificates.good
    settings = Grpc(enabled=True, port=free_port(), certificate=str(pair.certificate), key=str(pair.key))
    with (
        running(settings),
        calling(settings.port, certificates.ca) as call,
        grpc.insecure_channel(f"127.0.0.1:{settings.port}") as channel,
    ):
        assert call(*STATS).version
        assert Caller(channel).unanswered(*STATS)


# ---- beginning and end -----------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "AGAIN_S", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        settings = Grpc(enabled=True, port=busy.getsockname()[1])
        with running(settings) as service:
            line = f"the gRPC service failed: ConfigError: grpc: 127.0.0.1:{settings.port}: cannot listen here: "
            eventually(lambda: line in caplog.text)
            never(lambda: caplog.text.count(line) > 1, 0.1)
            assert service.client.get("/health").status_code == 200
            busy.close()
            with calling(settings.port) as call:
                assert call(*STATS).version


def test_at_its_end_calls_go_on_and_those_who_watch_its_health_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    with running() as service, calling(service.port) as call:
        remove = service.management.remove_backend

        async def slow(*names: str) -> None:
            begun.set()
            await asyncio.to_thread(go_on.wait)
            await remove(*names)

        monkeypatch.setattr(service.management, "remove_backend", slow)
        watched = health_of(call).Watch(health_pb2.HealthCheckRequest(service=NAMES[0]))
        assert next(watched).status == SERVING
        request = pb.RemoveBackendRequest(upstream="default", backend_id="one")
        future = call.future("BackendService", "RemoveBackend", request)
        assert begun.wait(5)
        (leave,) = service.client.app.state.leaving
        service.client.blocking_portal.call(leave)
        assert next(watched).status == NOT_SERVING
        go_on.set()
        assert future.result(DEADLINE_S) == pb.RemoveBackendResponse()
        with pytest.raises(grpc.RpcError):
            next(watched)
        assert call.unanswered(*STATS)


def test_the_worker_that_comes_next_takes_the_address_over(tmp_path: Path) -> None:
    """And the one before, which still gives the admin API's clients time, takes no more calls."""
    port = free_port()
    with process(tmp_path, grpc_port=port) as admin, calling(port) as call:
        before = worker_of(call)
        admin.process.send_signal(signal.SIGHUP)
        eventually(lambda: worker_of(call) != before, 20)
        after = worker_of(call)
        eventually(lambda: workers_reached(port) == {after}, 5)
        assert int(before) in descendants(admin.process.pid)
        assert f"management service over gRPC on 127.0.0.1:{port}" in admin.output()


def workers_reached(port: int) -> set[str]:
    """Who answers calls of new clients. The kernel gives each to one of those who listen."""
    found = set()
    for _ in range(6):
        with calling(port) as call:
            found.add(worker_of(call))
    return found


def worker_of(call: Caller) -> str:
    """The process that answers (`admin_process.py`)."""
    (backend,) = call("BackendService", "GetBackends", pb.GetBackendsRequest()).backends.upstreams["default"].backends
    name: str = backend.id
    return name


def test_a_busy_address_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_server, "LET_GO_S", 0)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        grpc_settings = Grpc(enabled=True, port=busy.getsockname()[1])
        config = Config(grpc=grpc_settings, redis=Redis(url="redis://127.0.0.1:1"), data_dir=str(tmp_path))
        with pytest.raises(ConfigError, match=r"^grpc: .*already in use"):
            control_plane.run(lambda: config)
