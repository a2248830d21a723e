"""What becomes of requests when a process of the relay is killed (kill -9): a worker, the parent, both in turn."""

import errno
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import sse
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.load import Load, worker_of
from tests.end_to_end.process_tree import is_alive
from tests.end_to_end.raw_client import BodyEnd, RawClient, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

ENOUGH = 200


def start(farm: RelayFarm, upstream: UpstreamInThread, *, workers: int, drain_timeout_s: float = 10) -> Relay:
    server = {"workers": workers, "drain_timeout_s": drain_timeout_s}
    return farm.start({"server": server, "routes": {"/up": upstream.url}})


def parent_of(relay: Relay) -> int:
    assert relay.process is not None
    return relay.process.pid


def workers_of(relay: Relay) -> set[int]:
    return relay.pids() - {parent_of(relay)}


def process_of(client: RawClient, pids: set[int]) -> int:
    """Which of the processes has the other end of a connection."""
    ours = [spelled(client.socket.getpeername()), spelled(client.socket.getsockname())]

    def looked_up() -> int | None:
        # While others come and go, the kernel's list may leave one out.
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        names = {f"socket:[{fields[9]}]" for fields in lines if fields[1:3] == ours}
        return next((pid for pid in pids if names & descriptors(pid)), None)

    found = eventually(looked_up)
    assert found is not None
    return found


def spelled(address: tuple[str, int]) -> str:
    """An address as /proc/net/tcp has it."""
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"


def descriptors(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed by now
            found.add(str(entry.readlink()))
    return found


def test_with_a_killed_worker_only_what_it_had_is_lost(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """One request at most on each of its connections. Clients of the other worker, and all that come, are served."""
    relay = start(farm, upstream, workers=2)
    load = Load(relay, "/up/echo", clients=12, passers_by=4)
    with load.running(), relay.client() as client:
        eventually(lambda: load.answered > ENOUGH and len(set(load.workers.values())) == 2)
        killed = worker_of(client.request("GET", "/up/echo"))
        before = workers_of(relay)
        os.kill(process_of(client, before), signal.SIGKILL)
        eventually(lambda: len(workers_of(relay) - before) == 1, 20, what="another worker")
        so_far = load.answered
        eventually(lambda: load.answered > so_far + ENOUGH)
    kept = [failure for failure in load.failures if failure.worker is not None]
    assert {failure.worker for failure in kept} <= {killed}
    assert len(kept) <= 12
    assert len(load.failures) - len(kept) <= 4 + 12  # of those that came: what the worker had taken in
    relay.excuse_output()
    farm.stop(relay)


def test_what_waits_to_be_accepted_outlives_a_killed_worker(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """The worker is stopped first, so that nothing is accepted; the next one finds all of it."""
    relay = start(farm, upstream, workers=1)
    (worker,) = workers_of(relay)
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: is_stopped(worker))
    clients = [relay.client() for _ in range(20)]
    for client in clients:
        client.send(request_bytes("GET", "/up/echo"))
    os.kill(worker, signal.SIGKILL)
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    relay.excuse_output()
    farm.stop(relay)


def is_stopped(pid: int) -> bool:
    """Whether all its threads are."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    with suppress(FileNotFoundError, ProcessLookupError):  # a thread has just ended
        return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)
    return False


def test_a_reload_reaches_a_worker_that_is_just_starting(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    relay = start(farm, upstream, workers=1)
    for number in range(3):
        before = workers_of(relay)
        relay.configuration["routes"] = {"/up": upstream.url, f"/new{number}": upstream.url}
        relay.write_configuration()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        relay.signal(signal.SIGHUP)
        eventually(lambda before=before: workers_of(relay) - before, 20)  # type: ignore[misc]
        eventually(lambda number=number: relay.get(f"/new{number}/echo").status == 200)  # type: ignore[misc]
        relay.excuse_output()
    farm.stop(relay)


def test_the_start_says_which_route_has_no_key_which_may_come_with_a_reload(
    upstream: UpstreamInThread, tmp_path: Path
) -> None:
    fixed = {"target": upstream.url, "credential": "fixed"}
    relay = Relay(tmp_path, {"server": {"workers": 2}, "routes": {"/fixed": fixed, "/up": upstream.url}})
    relay.start()
    assert relay.output().count("credentials.api_key is not set: requests of /fixed (") == 1
    assert (relay.get("/fixed/echo").status, relay.get("/up/echo").status) == (503, 200)
    relay.configuration["credentials"] = {"api_key": "k"}
    relay.write_configuration()
    relay.signal(signal.SIGHUP)
    eventually(lambda: {relay.get("/fixed/echo").status for _ in range(10)} == {200}, what="the key in each worker")
    assert relay.output().count("credentials.api_key is not set") == 1
    relay.stop()


def test_one_that_is_told_to_stop_while_workers_start_stops(upstream: UpstreamInThread, tmp_path: Path) -> None:
    for number in range(5):
        directory = tmp_path / str(number)
        directory.mkdir()
        relay = Relay(directory, {"server": {"workers": 2}, "routes": {"/up": upstream.url}})
        relay.launch()
        eventually(lambda relay=relay: workers_of(relay), 20, what="a worker")  # type: ignore[misc]
        relay.stop()


def bury(farm: RelayFarm, relay: Relay) -> None:
    """Kill the parent alone, and wait until its workers have let the address go."""
    farm.alive.remove(relay)
    os.kill(parent_of(relay), signal.SIGKILL)
    relay.wait()
    eventually(lambda: is_refused(relay), what="the address to be free")


def is_refused(relay: Relay) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex((relay.host, relay.port)) == errno.ECONNREFUSED


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_parent_leaves_its_address_to_the_next_and_its_requests_an_end(
    farm: RelayFarm, upstream: UpstreamInThread, seen: Seen, workers: int
) -> None:
    relay = start(farm, upstream, workers=workers)
    left = workers_of(relay)
    streams = [relay.client() for _ in range(4)]
    for stream in streams:
        stream.send(request_bytes("GET", "/up" + sse(events=60, interval_ms=100)))
    responses = [stream.read_head() for stream in streams]
    bury(farm, relay)
    relay.start()
    farm.alive.append(relay)
    assert any(map(is_alive, left))
    assert worker_of(relay.get("/up/echo")) not in set(map(worker_of, responses))
    for stream, response in zip(streams, responses, strict=True):
        stream.read_body(response)
        assert (response.body.count(b"\n\n"), response.end) == (60, BodyEnd.COMPLETE)
        stream.close()
    eventually(lambda: not any(map(is_alive, left)), what="the end of the workers")
    assert len(seen.all()) == 5
    farm.stop(relay)


def test_without_a_parent_too_what_does_not_end_is_cut_at_the_deadline(
    farm: RelayFarm, upstream: UpstreamInThread, seen: Seen
) -> None:
    relay = start(farm, upstream, workers=1, drain_timeout_s=0.5)
    left = workers_of(relay)
    with relay.client() as stream:
        stream.send(request_bytes("GET", "/up" + sse(events=10_000, interval_ms=50)))
        response = stream.read_head()
        bury(farm, relay)
        stream.read_body(response)
        assert response.end is not BodyEnd.COMPLETE
    eventually(lambda: not any(map(is_alive, left)), 10, what="the end of the worker")
    eventually(lambda: seen.one().peer_closed_s)
    assert "1 requests were left" in relay.output()
