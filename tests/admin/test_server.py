"""The admin API's process."""

import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import httpx
import pytest

from admin.server import NICENESS, AppLoader, Listener, run
from proxy import server as proxy_server
from proxy.config import ConfigError
from tests.admin.admin_process import Admin, make, running
from tests.admin.api import AUTHORIZED, TOKEN
from tests.end_to_end.certificates import Certificates, Pair
from tests.end_to_end.process_tree import descendants, is_alive
from tests.end_to_end.waiting import eventually

JSON = {"content-type": "application/json"}
STOP_S = 8.0
"""Less than the server gives its worker."""
LOGIN = f'{{"token": "{TOKEN}"}}'


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with running(tmp_path_factory.mktemp("admin")) as admin:
        yield admin


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def niceness(process_id: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, process_id)


def test_the_worker_gives_way_to_the_data_plane(admin: Admin) -> None:
    workers = [child for child in descendants(admin.process.pid) if niceness(child) == NICENESS]
    assert len(workers) == 1
    assert niceness(admin.process.pid) == 0


def test_it_says_where_it_listens(admin: Admin) -> None:
    line = f"relaygate: admin API on http://127.0.0.1:{admin.port}\n"
    eventually(lambda: line in admin.output(), what="the line that says where it listens")


def test_every_line_of_the_references_document_works(admin: Admin) -> None:
    connection = HTTPConnection("127.0.0.1", admin.port)

    def ask(method: str, path: str, body: str | None = None) -> int:
        connection.request(method, path, body, {**AUTHORIZED, **(JSON if body else {})})
        response = connection.getresponse()
        response.read()
        return response.status

    assert ask("GET", "/api/mappings") == 200
    assert ask("POST", "/api/mappings", '{"prefix":"/newapi","target":"https://api.example.com"}') == 201
    assert ask("PUT", "/api/mappings/newapi", '{"target":"https://newapi.example.com"}') == 200
    assert ask("DELETE", "/api/mappings/%2Fnewapi") == 200
    assert ask("DELETE", "/api/mappings/newapi") == 404
    assert ask("POST", "/api/mappings", '{"prefix":"/","target":"https://api.example.com"}') == 201
    assert ask("DELETE", "/api/mappings/%2F") == 200
    connection.close()


def test_a_session_over_clear_text(admin: Admin) -> None:
    connection = HTTPConnection("127.0.0.1", admin.port)
    connection.request("POST", "/api/admin/login", LOGIN, JSON)
    response = connection.getresponse()
    assert (response.status, response.read()[:15]) == (200, b'{"success":true')
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("relaygate=")
    assert "Secure" not in cookie
    connection.putrequest("GET", "/api/versions")
    connection.putheader("Cookie", "a=b")
    connection.putheader("Cookie", cookie.partition(";")[0])
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 200
    response.read()
    headers = {"cookie": cookie.partition(";")[0]}
    for method, path, origin, status in (
        ("POST", "/api/logout", "http://127.0.0.1:1", 403),
        ("POST", "/api/logout", f"http://127.0.0.1:{admin.port}", 200),
        ("GET", "/api/versions", f"http://127.0.0.1:{admin.port}", 401),
    ):
        connection.request(method, path, headers=headers | {"origin": origin})
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_a_session_over_tls(certificates: Certificates, tmp_path: Path) -> None:
    with running(tmp_path, certificates.good) as admin:
        connection = HTTPSConnection("127.0.0.1", admin.port, context=certificates.client_tls())
        connection.request("POST", "/api/admin/login", LOGIN, JSON)
        response = connection.getresponse()
        response.read()
        name, *attributes = response.headers["set-cookie"].split("; ")
        assert name.startswith("__Host-relaygate=")
        assert set(attributes) >= {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"}
        connection.request("GET", "/api/versions", headers={"cookie": name})
        assert connection.getresponse().status == 200
        connection.close()


def test_http2_is_offered_over_tls(certificates: Certificates, tmp_path: Path) -> None:
    with (
        running(tmp_path, certificates.good) as admin,
        certificates.client_tls("h2", "http/1.1").wrap_socket(
            socket.create_connection(("127.0.0.1", admin.port)), server_hostname="127.0.0.1"
        ) as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"


def shown(admin: Admin) -> bytes:
    """The certificate, as PEM."""
    return ssl.get_server_certificate(("127.0.0.1", admin.port)).encode()


def test_a_renewed_certificate_is_used_after_sighup_or_by_itself_and_a_bad_one_is_not(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Under the same names, and a connection that is kept loses nothing."""
    pair = Pair(tmp_path / "live.pem", tmp_path / "live.key")
    renewed = certificates.issue("renewed", "127.0.0.1")
    put(certificates.good, pair)
    with running(tmp_path, pair) as admin:
        with httpx.Client(verify=certificates.client_tls(), base_url=f"https://127.0.0.1:{admin.port}") as client:
            assert client.get("/health").status_code == 200
            put(renewed, pair)
            admin.process.send_signal(signal.SIGHUP)
            eventually(lambda: shown(admin) in renewed.certificate.read_bytes(), 20)
            assert client.get("/health").headers["connection"] == "close"
            assert client.get("/health").status_code == 200
        before = descendants(admin.process.pid)
        put(Pair(certificates.good.certificate, renewed.key), pair)
        admin.process.send_signal(signal.SIGHUP)
        eventually(lambda: "not reloaded" in admin.output())
        assert shown(admin) in renewed.certificate.read_bytes()
        assert descendants(admin.process.pid) <= before
        shutil.copyfile(certificates.good.key, pair.key)
        eventually(lambda: shown(admin) in certificates.good.certificate.read_bytes(), 20)


def put(source: Pair, place: Pair) -> None:
    shutil.copyfile(source.certificate, place.certificate)
    shutil.copyfile(source.key, place.key)


def test_of_the_workers_that_were_replaced_one_is_left_at_most(tmp_path: Path) -> None:
    """However often that happens within the half minute for which each gives its clients time."""
    with running(tmp_path) as admin:
        workers = descendants(admin.process.pid)
        for _ in range(3):
            before = workers
            admin.process.send_signal(signal.SIGHUP)
            eventually(lambda before=before: descendants(admin.process.pid) - before, 20)  # type: ignore[misc]
            eventually(lambda: len(descendants(admin.process.pid)) == 2, 20)
            workers = descendants(admin.process.pid)
        assert httpx.get(f"http://127.0.0.1:{admin.port}/health").status_code == 200


def test_the_worker_ends_with_its_parent_and_lets_the_address_go(tmp_path: Path) -> None:
    let_go = False
    with pytest.raises(AssertionError), running(tmp_path) as admin:  # noqa: PT012 - the end is not the usual one
        (worker,) = descendants(admin.process.pid)
        admin.process.kill()
        # The worker is told as the parent's first thread ends, and may end before the last, which has the socket too.
        both = admin.process.pid, worker
        eventually(lambda: not any(map(is_alive, both)), 20, what="the end of both")
        with socket.create_server(("127.0.0.1", admin.port)):
            let_go = True
    assert let_go


def test_a_body_that_breaks_off_is_no_failure(admin: Admin) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", admin.port)) as connection:
            head = f"POST /api/mappings HTTP/1.1\r\nHost: x\r\nx-admin-key: {TOKEN}\r\nContent-Length: 100\r\n\r\n"
            connection.sendall(head.encode() + b'{"prefix"')
    assert httpx.get(f"http://127.0.0.1:{admin.port}/health").status_code == 200
    assert "failed" not in admin.output()


def test_a_busy_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_server, "LET_GO_S", 0)
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ConfigError, match=r"^admin: .*already in use"):
        run(make, Listener("127.0.0.1", busy.getsockname()[1]))


def test_the_loader_makes_the_application_where_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(os, "nice", steps.append)
    loader = AppLoader(make)
    assert not steps
    loader()
    assert steps == [NICENESS]


def test_who_listens_to_the_live_log_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    with running(tmp_path, listening_s=60) as admin:
        connection = HTTPConnection("127.0.0.1", admin.port, timeout=STOP_S)
        connection.request("GET", "/admin/logs/stream", headers=AUTHORIZED)
        response = connection.getresponse()
        assert response.read1() == b": keep-alive\n\n"
        admin.process.send_signal(signal.SIGTERM)
        assert response.read() == b"", "the stream has ended as it should"
        assert admin.process.wait(STOP_S) == 0
        connection.close()


def test_a_stream_that_ends_leaves_its_connection_to_the_next_request(admin: Admin) -> None:
    connection = HTTPConnection("127.0.0.1", admin.port)
    for _ in range(2):
        connection.request("GET", "/admin/logs/stream", headers=AUTHORIZED)
        assert connection.getresponse().read() == b": keep-alive\n\n"
    connection.close()
