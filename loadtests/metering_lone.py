"""What metering takes a client who is alone: a question to Redis for each request, with nobody to share it with.

One client asks one relay for both routes by turns, in bursts so short that a machine whose speed drifts is the same for
two that follow each other. No process is held to a CPU.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from loadtests.cases import ANSWER_TIMEOUT_S, WrongAnswerError, expect
from loadtests.metering_cost import ONE, counting, publish
from loadtests.processes import running
from loadtests.relay_pairs import Variant, embedded_redis, first_answer, relay_launch, target
from loadtests.samples import Reading, Unit, percentile
from loadtests.upstreams import ANSWER, Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH

ADDED_P50_MS_MAX = 0.2
TOKEN, PUBLIC = "/t", "/p"
RECEIVED_BYTES_MAX = 65_536
STATUS, END = b"HTTP/1.1 200 ", b"\r\n\r\n" + ANSWER


class Latencies(NamedTuple):
    """p50 of each burst, in ms. Those of one index followed each other."""

    token_ms: list[float]
    public_ms: list[float]

    @property
    def added_ms(self) -> list[float]:
        return [token_ms - public_ms for token_ms, public_ms in zip(self.token_ms, self.public_ms, strict=True)]


class LoneClient:
    """One connection, kept alive, on which each request follows the answer to the last. Blocking, to add little."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def p50_ms(self, asked: bytes, seconds: float) -> float:
        """Sends the same request for so long. Raises WrongAnswerError."""
        return 1000 * percentile(list(self._each_s(asked, seconds)), 50)

    def _each_s(self, asked: bytes, seconds: float) -> Iterator[float]:
        began_s = ended_s = perf_counter()
        while ended_s - began_s < seconds:
            sent_s = ended_s
            self._exchange(asked)
            ended_s = perf_counter()
            yield ended_s - sent_s

    def _exchange(self, asked: bytes) -> None:
        received = b""
        try:
            self._socket.sendall(asked)
            while not received.endswith(END):
                piece = self._socket.recv(RECEIVED_BYTES_MAX)
                received += piece
                if not piece or not received.startswith(STATUS[: len(received)]):
                    raise WrongAnswerError(f"not the answer expected: {received[:200]!r}")
        except OSError as error:
            raise WrongAnswerError(f"no whole answer: {error!r}, after {received[:200]!r}") from error

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class MeteringLone:
    """Requests on one connection to a route with `access: token`, and to the same one that is public."""

    bursts: int = 50
    burst_s: float = 0.1
    name: str = "metering-lone"

    @property
    def title(self) -> str:
        return (
            f"{len(REQUEST_BODY)}-byte POSTs of one client on one connection, by turns to a route with `access: token` "
            f"and to a public one of the same relay, in {self.bursts} bursts of {self.burst_s:g} s to each a round"
        )

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        routes = {
            prefix: {"target": target(upstreams), "access": access}
            for prefix, access in ((TOKEN, "token"), (PUBLIC, "public"))
        }
        with embedded_redis(directory / "redis") as url:
            asyncio.run(publish(url, counting(ONE)))
            folder = directory / "relay"
            with running(relay_launch(folder, url, Variant(routes, {})), directory / "relay.log") as program:
                for prefix in (TOKEN, PUBLIC):
                    expect(first_answer(program.port, prefix + REQUEST_PATH), ANSWER)
                with closing(LoneClient(program.port)) as client:
                    found = self._latencies(client)
        lines = [
            ("p50, token less public", found.added_ms, ADDED_P50_MS_MAX),
            ("p50, token", found.token_ms, None),
            ("p50, public", found.public_ms, None),
        ]
        return [Reading(self.name, what, Unit.MILLISECONDS, [median(each)], bound) for what, each, bound in lines]

    def _latencies(self, client: LoneClient) -> Latencies:
        found = Latencies([], [])
        by_turns = [(found.token_ms, request(TOKEN)), (found.public_ms, request(PUBLIC))]
        for _, asked in by_turns:
            client.p50_ms(asked, self.burst_s)
        for _ in range(self.bursts):
            # Who is first is not always first, so that a machine that becomes slower does so for both.
            by_turns.reverse()
            for p50s_ms, asked in by_turns:
                p50s_ms.append(client.p50_ms(asked, self.burst_s))
        return found


def request(prefix: str) -> bytes:
    """Returns the POST of the benchmark to a route."""
    fields = {"Host": "127.0.0.1", **REQUEST_HEADERS, "Content-Length": str(len(REQUEST_BODY))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {prefix}{REQUEST_PATH} HTTP/1.1\r\n{head}\r\n".encode() + REQUEST_BODY
