"""Clients that ask all the time, and take note of each request that fails."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.end_to_end.raw_client import BodyEnd, ClosedEarlyError, RawClient, Response, request_bytes
from tests.end_to_end.relay_process import Relay

PAUSE_S = 0.002


class Failure(NamedTuple):
    """A request without its answer; `worker` is who gave the connection's answer before, if there was one."""

    worker: str | None
    said: str


class Load:
    """Some clients keep their connection until they are told that it is closed, others take one for each request.

    One that was broken off is replaced, so each failure is that of one request.
    """

    def __init__(self, relay: Relay, path: str, clients: int, passers_by: int = 0) -> None:
        self.answered = 0
        self.failures: list[Failure] = []
        self.workers: dict[int, str] = {}
        """Whose answer each of the clients that keep their connection had last."""
        self._relay = relay
        self._request = request_bytes("GET", path)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._keep, args=(number,)) for number in range(clients)]
        self._threads += [threading.Thread(target=self._pass_by) for _ in range(passers_by)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _keep(self, number: int) -> None:
        while not self._over.is_set():
            worker = None
            try:
                with self._relay.client() as client:
                    told = False
                    while not told and not self._over.is_set():
                        response = self._ask(client)
                        worker = self.workers[number] = worker_of(response)
                        told = closes(response)
                        time.sleep(PAUSE_S)
            except (OSError, ClosedEarlyError) as error:
                self.failures.append(Failure(worker, repr(error)))

    def _pass_by(self) -> None:
        while not self._over.is_set():
            try:
                with self._relay.client() as client:
                    self._ask(client)
            except (OSError, ClosedEarlyError) as error:
                self.failures.append(Failure(None, repr(error)))

    def _ask(self, client: RawClient) -> Response:
        client.send(self._request)
        response = client.read_response()
        if response.status != 200 or response.end is not BodyEnd.COMPLETE:
            self.failures.append(Failure(worker_of(response), f"{response.status} {response.end}"))
        self.answered += 1
        return response


def worker_of(response: Response) -> str:
    """The name of the worker that answered: the ids of its requests begin with it."""
    return response.value("x-request-id")[:16].decode()


def closes(response: Response) -> bool:
    return b"close" in response.values("connection")
