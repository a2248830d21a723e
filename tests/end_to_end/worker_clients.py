"""Connections to a relay, of which it is known which worker has them."""

import contextlib
from collections.abc import Iterator

from tests.end_to_end.load import worker_of
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually


@contextlib.contextmanager
def clients_of_each_worker(relay: Relay, each: int, workers: int = 2) -> Iterator[list[list[RawClient]]]:
    """So many connections of each worker. The kernel says who gets a new one, so some are closed again."""
    found: dict[str, list[RawClient]] = {}
    with contextlib.ExitStack() as stack:

        def all_there() -> bool:
            client = relay.client()
            own = found.setdefault(worker_of(client.request("GET", "/nowhere")), [])
            if len(own) < each:
                own.append(stack.enter_context(client))
            else:
                client.close()
            return len(found) == workers and all(len(clients) == each for clients in found.values())

        eventually(all_there, what=f"{each} connections to each worker")
        yield list(found.values())
