"""A lone client takes nothing but the right answer. The case itself runs in `test_own_cases.py`."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from loadtests.cases import WrongAnswerError
from loadtests.metering_lone import TOKEN, Latencies, LoneClient, request
from loadtests.upstreams import ANSWER
from loadtests.wrk import REQUEST_BODY, REQUEST_PATH

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + ANSWER


@contextmanager
def answering(answers: Sequence[Sequence[bytes]]) -> Iterator[int]:
    """The port of a server that answers the requests of one connection so, each in pieces, and then closes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for pieces in answers:
                received = b""
                while not received.endswith(REQUEST_BODY):
                    received += connection.recv(4096)
                for piece in pieces:
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = threading.Thread(target=serve)
        served.start()
        try:
            yield listener.getsockname()[1]
        finally:
            served.join()


def test_an_answer_may_come_in_pieces() -> None:
    with answering([[OK[:10], OK[10:50], OK[50:]]]) as port, closing(LoneClient(port)) as client:
        assert client.p50_ms(request(TOKEN), 1e-9) > 0


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + ANSWER, OK[:-1], b""], ids=["refused", "cut", "none"]
)
def test_another_answer_is_no_figure(answer: bytes) -> None:
    with (
        answering([[OK], [answer]]) as port,
        closing(LoneClient(port)) as client,
        pytest.raises(WrongAnswerError, match=r"not the answer expected|no whole answer"),
    ):
        client.p50_ms(request(TOKEN), 60)


def test_the_request_is_that_of_the_other_cases() -> None:
    head, _, body = request("/p").partition(b"\r\n\r\n")
    assert head.startswith(f"POST /p{REQUEST_PATH} HTTP/1.1\r\nHost: ".encode())
    assert b"\r\nContent-Length: 283" in head
    assert body == REQUEST_BODY


def test_bursts_are_compared_with_those_beside_them() -> None:
    assert Latencies([0.5, 0.25, 1.0], [0.25, 0.5, 0.25]).added_ms == [0.25, -0.25, 0.75]
