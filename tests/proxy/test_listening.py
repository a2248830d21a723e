"""Listening sockets that outlive workers."""

import select
import socket

import pytest

from loadtests.processes import free_port
from proxy import listening
from proxy.listening import bind, stop_accepting


def test_the_sockets_share_an_address_and_none_listens_yet() -> None:
    port = free_port()
    sockets = [socket.socket(fileno=holder.get_fd()) for holder in bind("127.0.0.1", port, 10, 3)]
    assert [one.getsockname() for one in sockets] == [("127.0.0.1", port)] * 3
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0
    for one in sockets:
        one.close()


def test_who_stops_accepting_leaves_connections_to_the_others() -> None:
    """And hears no more of them, though its epoll watches a socket that lives on."""
    with socket.create_server(("127.0.0.1", 0)) as kept, select.epoll() as poll:
        listener = kept.dup()
        listener.setblocking(False)
        poll.register(listener.fileno(), select.EPOLLIN | select.EPOLLET)
        stop_accepting(listener.fileno())
        with socket.create_connection(kept.getsockname()):
            assert poll.poll(0) == []
            try:
                listener.accept()
            except BlockingIOError:
                accepted, _ = kept.accept()
                accepted.close()
            else:
                raise AssertionError("accepted")
        listener.close()


def test_a_poll_that_a_thread_closes_meanwhile_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a worker that was retired in its first moments, and went on accepting."""
    with select.epoll() as gone:
        number = str(gone.fileno())
    polls = listening._polls
    monkeypatch.setattr(listening, "_polls", lambda: [number, *polls()])
    with socket.create_server(("127.0.0.1", 0)) as kept:
        address = kept.getsockname()
        stop_accepting(kept.fileno())
        with socket.socket() as client:
            assert client.connect_ex(address) != 0
