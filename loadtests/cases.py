"""The cases: what each sends through a proxy, how the answer is checked first, and what is read off.

A case verifies before it measures (status and exact bytes) and reports every wrong answer of the run itself. It gets a
freshly started proxy for every sample, so that no case inherits the memory or the connections of another.
"""

import hashlib
import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Protocol

from loadtests.idle_clients import idle_clients
from loadtests.measure import CpuReading, cpu_spent_ns, read_cpu, read_pss
from loadtests.processes import Running
from loadtests.samples import Metric, percentile
from loadtests.servers import Traffic
from loadtests.sse_client import event_streams
from loadtests.streaming_upstream import EVENTS_PER_S, event
from loadtests.transfers import download, download_slowly, upload
from loadtests.upstreams import ANSWER, MIB, SAMPLE_FILE, Origin, Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH, run_wrk, write_script

ANSWER_TIMEOUT_S = 10.0
WARM_UP_S = 1.0
VERIFIED_EVENTS = 500
SETTLE_S = 1.0
TRANSFER_TIMEOUT_S = 120.0


class WrongAnswerError(Exception):
    """A proxy did not relay what it was asked to relay."""


@dataclass(frozen=True)
class Outcome:
    """What one run of a case gave: figures, a sentence for every kind of wrong answer, and what else is to be told."""

    values: dict[Metric, float]
    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Case(Protocol):
    """`unit` is what throughput and CPU are counted in."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def traffic(self) -> Traffic: ...
    def origin(self, upstreams: Upstreams) -> Origin: ...
    def verify(self, upstreams: Upstreams, port: int) -> None:
        """Raise `WrongAnswerError` unless one exchange comes through byte for byte."""

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome: ...


def exchange(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    """One request on a connection of its own. Raises `WrongAnswerError` where no whole answer comes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise WrongAnswerError(f"{method} {path}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def expect(answer: tuple[int, bytes], body: bytes) -> None:
    status, received = answer
    if status != 200:
        raise WrongAnswerError(f"status {status} instead of 200: {received[:200]!r}")
    if received != body:
        raise WrongAnswerError(f"{len(received)} bytes that are not the {len(body)} expected: {received[:200]!r}")


def upstream_counters(upstreams: Upstreams) -> tuple[int, int]:
    """Connections accepted and requests served by the upstream nginx so far (stub_status, whose own are among them)."""
    _, page = exchange(upstreams.http.port, "GET", "/status", None, {})
    accepted, _, requests = map(int, page.decode().splitlines()[2].split())
    return accepted, requests


@dataclass(frozen=True)
class PostCase:
    """A short POST with a short answer, over and over, on `connections` kept-alive connections."""

    scheme: str
    connections: int
    seconds: float
    unit: str = "request"
    traffic: Traffic = Traffic.REQUESTS

    @property
    def name(self) -> str:
        return f"post-{self.scheme}-{self.connections}"

    @property
    def title(self) -> str:
        connections = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        sizes = f"{len(REQUEST_BODY)}-byte POST, {len(ANSWER)}-byte JSON answer"
        return f"{sizes}, {connections}, {self.scheme} upstream"

    def origin(self, upstreams: Upstreams) -> Origin:
        return upstreams.https if self.scheme == "https" else upstreams.http

    def verify(self, upstreams: Upstreams, port: int) -> None:
        del upstreams
        expect(exchange(port, "POST", REQUEST_PATH, REQUEST_BODY, REQUEST_HEADERS), ANSWER)

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome:
        script = write_script(upstreams.directory)
        run_wrk(script, proxy.port, self.connections, WARM_UP_S)
        connections_before, requests_before = upstream_counters(upstreams)
        cpu = read_cpu(proxy.session)
        figures = run_wrk(script, proxy.port, self.connections, self.seconds)
        cpu_ns = cpu_spent_ns(cpu, read_cpu(proxy.session))
        connections_after, requests_after = upstream_counters(upstreams)
        errors = list(figures.errors)
        opened, served = connections_after - connections_before, requests_after - requests_before
        if opened > served // 20 + 2 * self.connections:
            errors.append(f"upstream connections were not kept alive: {opened} for {served} requests")
        if not figures.requests:
            return Outcome({}, [*errors, "no request was answered"])
        values = {
            Metric.UNITS_PER_S: figures.requests / figures.duration_s,
            Metric.CPU_US_PER_UNIT: cpu_ns / 1000 / figures.requests,
            Metric.P50_US: figures.p50_us,
            Metric.P99_US: figures.p99_us,
            Metric.PSS_BYTES: sum(read_pss(proxy.session).values()),
        }
        return Outcome(values, errors)


@dataclass(frozen=True)
class SseCase:
    """Endless event streams, all at the upstream's pace: an open load, so a proxy that is too slow loses events."""

    streams: int
    seconds: float
    name: str = "sse"
    unit: str = "event"
    traffic: Traffic = Traffic.STREAMS

    @property
    def title(self) -> str:
        size = len(event(0))
        return f"{self.streams:,} event streams of {EVENTS_PER_S} events/s, {size} bytes each; p50 and p99 are delays"

    def origin(self, upstreams: Upstreams) -> Origin:
        return upstreams.streaming

    def verify(self, upstreams: Upstreams, port: int) -> None:
        del upstreams
        events = b"".join(event(number) for number in range(VERIFIED_EVENTS))
        expect(exchange(port, "GET", f"/events?count={VERIFIED_EVENTS}", None, {}), events)

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome:
        del upstreams
        with event_streams(proxy.port, self.streams) as streams:
            warm_up = streams.receive(WARM_UP_S)
            cpu = read_cpu(proxy.session)
            tally = streams.receive(self.seconds)
            cpu_ns = cpu_spent_ns(cpu, read_cpu(proxy.session))
            pss_bytes = sum(read_pss(proxy.session).values())
        ended = warm_up.ended + tally.ended
        errors = [f"{ended} streams ended"] if ended else []
        if not tally.delays_us:
            return Outcome({}, [*errors, f"too few events came: {tally.events}"])
        values = {
            Metric.UNITS_PER_S: tally.events / tally.seconds,
            Metric.DELIVERED_PERCENT: 100 * tally.events / (tally.seconds * self.streams * EVENTS_PER_S),
            Metric.EVENTS_PER_READ: tally.events / tally.reads,
            Metric.CPU_US_PER_UNIT: cpu_ns / 1000 / tally.events,
            Metric.P50_US: percentile(tally.delays_us, 50),
            Metric.P99_US: percentile(tally.delays_us, 99),
            Metric.PSS_BYTES: pss_bytes,
        }
        return Outcome(values, errors)


@dataclass(frozen=True)
class DownloadCase:
    """One long body from the upstream to one client, as fast as it goes."""

    body_bytes: int
    name: str = "download"
    unit: str = "MiB"
    traffic: Traffic = Traffic.STREAMS

    @property
    def title(self) -> str:
        return f"Download of {self.body_bytes / MIB:,.0f} MiB by one client"

    def origin(self, upstreams: Upstreams) -> Origin:
        return upstreams.http

    def verify(self, upstreams: Upstreams, port: int) -> None:
        expect(exchange(port, "GET", SAMPLE_FILE, None, {}), upstreams.sample)

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome:
        del upstreams
        cpu = read_cpu(proxy.session)
        transfer = download(proxy.port, self.body_bytes, TRANSFER_TIMEOUT_S)
        return transferred(proxy, cpu, self.body_bytes, transfer.seconds)


@dataclass(frozen=True)
class UploadCase:
    """One long body from one client to the upstream, as fast as it goes."""

    body_bytes: int
    name: str = "upload"
    unit: str = "MiB"
    traffic: Traffic = Traffic.STREAMS

    @property
    def title(self) -> str:
        return f"Upload of {self.body_bytes / MIB:,.0f} MiB by one client"

    def origin(self, upstreams: Upstreams) -> Origin:
        return upstreams.streaming

    def verify(self, upstreams: Upstreams, port: int) -> None:
        sample = upstreams.sample
        received = {"bytes": len(sample), "sha256": hashlib.sha256(sample).hexdigest()}
        expect(exchange(port, "POST", "/checksum", sample, {}), json.dumps(received).encode())

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome:
        cpu = read_cpu(proxy.session)
        transfer = upload(proxy.port, upstreams.big_file, TRANSFER_TIMEOUT_S)
        return transferred(proxy, cpu, self.body_bytes, transfer.seconds)


def transferred(proxy: Running, before: CpuReading, body_bytes: int, seconds: float) -> Outcome:
    cpu_ns = cpu_spent_ns(before, read_cpu(proxy.session))
    return Outcome(
        {
            Metric.UNITS_PER_S: body_bytes / MIB / seconds,
            Metric.CPU_US_PER_UNIT: cpu_ns / 1000 / (body_bytes / MIB),
            Metric.PSS_BYTES: sum(read_pss(proxy.session).values()),
        }
    )


@dataclass(frozen=True)
class SlowCase:
    """A long body to clients that read slower than the upstream sends: what the proxy keeps in memory meanwhile."""

    clients: int
    bytes_per_s: int
    body_bytes: int
    name: str = "slow"
    unit: str = "MiB"
    traffic: Traffic = Traffic.STREAMS

    @property
    def title(self) -> str:
        size, pace = f"{self.body_bytes / MIB:,.0f} MiB", f"{self.bytes_per_s / 1e6:g} MB/s"
        return f"Download of {size} to each of {self.clients} clients at once that read {pace} each"

    def origin(self, upstreams: Upstreams) -> Origin:
        return upstreams.http

    def verify(self, upstreams: Upstreams, port: int) -> None:
        expect(exchange(port, "GET", SAMPLE_FILE, None, {}), upstreams.sample)

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome:
        del upstreams
        time.sleep(SETTLE_S)
        idle_bytes = sum(read_pss(proxy.session).values())
        seen_bytes = [idle_bytes]
        cpu = read_cpu(proxy.session)
        transfers = download_slowly(
            proxy.port,
            self.clients,
            self.bytes_per_s,
            self.body_bytes,
            lambda: seen_bytes.append(sum(read_pss(proxy.session).values())),
        )
        cpu_ns = cpu_spent_ns(cpu, read_cpu(proxy.session))
        total_mib = self.clients * self.body_bytes / MIB
        return Outcome(
            {
                Metric.UNITS_PER_S: total_mib / max(transfer.seconds for transfer in transfers),
                Metric.CPU_US_PER_UNIT: cpu_ns / 1000 / total_mib,
                Metric.PSS_BYTES: idle_bytes,
                Metric.GROWTH_BYTES: max(seen_bytes) - idle_bytes,
            }
        )


@dataclass(frozen=True)
class IdleCase:
    """Connections that have asked once and stay: what the proxy weighs before them, and what each adds."""

    connections: int
    name: str = "idle"
    unit: str = "connection"
    traffic: Traffic = Traffic.REQUESTS

    @property
    def title(self) -> str:
        return f"Memory at rest, and of each of {self.connections:,} idle kept-alive connections after one request"

    def origin(self, upstreams: Upstreams) -> Origin:
        return upstreams.http

    def verify(self, upstreams: Upstreams, port: int) -> None:
        del upstreams
        expect(exchange(port, "POST", REQUEST_PATH, REQUEST_BODY, REQUEST_HEADERS), ANSWER)

    def measure(self, upstreams: Upstreams, proxy: Running) -> Outcome:
        del upstreams
        time.sleep(SETTLE_S)
        at_rest = read_pss(proxy.session)
        with idle_clients(proxy.port, self.connections) as clients:
            time.sleep(SETTLE_S)
            grown_bytes = sum(read_pss(proxy.session).values()) - sum(at_rest.values())
            closed = clients.closed()
        values = {
            Metric.PSS_BYTES: sum(at_rest.values()),
            Metric.CONNECTION_BYTES: grown_bytes / self.connections,
        }
        return Outcome(values, [f"{closed} idle connections were closed"] if closed else [])
