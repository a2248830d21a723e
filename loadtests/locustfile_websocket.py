"""WebSocket conversations: connect, some messages of several sizes echoed one after the other, close with a reason.

Rows: `websocket connect`, `websocket echo` (a message there and back) and `websocket close` (until the other side's
close frame).
"""

import contextlib
import time
from collections.abc import Iterator

import websocket
from locust import User, constant, task

TIMEOUT_S = 10.0
MESSAGE_BYTES = (2, 125, 126, 4_000, 65_535, 65_536, 200_000)
MESSAGES = [b"\x00\xff" * (size // 2) + b"r" * (size % 2) for size in MESSAGE_BYTES]
TEXT = "h\u00e9llo \U0001f30d"


class WrongMessageError(Exception):
    """What came back is not what was sent."""


class WebSocketUser(User):
    wait_time = constant(0)

    @contextlib.contextmanager
    def timed(self, name: str, size: int) -> Iterator[None]:
        """Report what happens inside as one request, failed if it raised; errors of the conversation end it here."""
        begin_s = time.perf_counter()
        error: Exception | None = None
        try:
            yield
        except (OSError, websocket.WebSocketException, WrongMessageError) as raised:
            error = raised
            raise
        finally:
            self.environment.events.request.fire(
                request_type="WS",
                name=name,
                response_time=(time.perf_counter() - begin_s) * 1000,
                response_length=size,
                exception=error,
                context={},
            )

    @task
    def converse(self) -> None:
        # What went wrong has been reported by then; the next conversation begins afresh.
        with contextlib.suppress(OSError, websocket.WebSocketException, WrongMessageError):
            self.conversation()

    def conversation(self) -> None:
        url = str(self.host).replace("http", "ws", 1) + "/websocket/echo"
        with self.timed("websocket connect", 0):
            client = websocket.create_connection(url, timeout=TIMEOUT_S)
        try:
            for message in MESSAGES:
                with self.timed("websocket echo", len(message)):
                    client.send_binary(message)
                    expect(client.recv(), message)
            with self.timed("websocket echo", len(TEXT.encode())):
                client.send(TEXT)
                expect(client.recv(), TEXT)
            with self.timed("websocket close", 0):
                client.close(status=1000, reason=b"done", timeout=TIMEOUT_S)
        finally:
            if client.sock:
                client.sock.close()


def expect(received: bytes | str, sent: bytes | str) -> None:
    if received != sent:
        raise WrongMessageError(f"{len(received)} of {len(sent)} came back, or others")
