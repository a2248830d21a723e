"""What one worker's meter gets decided: askers who do nothing but ask, in a process of their own, under uvloop.

Each has a request admitted, settles it as one that succeeded, and asks for the next at once, as `phases/admit.py` and
the end of a request do. Nothing is relayed: what is measured are the meter, its connection, and Redis.

    asked = ask(url, digests, askers=256, seconds=2)
"""

import asyncio
import itertools
import secrets
import subprocess
import sys
from collections.abc import Sequence
from time import monotonic

import msgspec
import uvloop

from loadtests.cases import WrongAnswerError
from loadtests.samples import percentile
from loadtests.upstreams import REPOSITORY
from proxy.metering.meter import SUCCESS, Meter
from proxy.rules.batches import Asked, Verdict
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import connect
from proxy.shared_state.meter_store import MeterStore
from proxy.shared_state.tasks import end

COST = 1
WARM_UP_S = 0.5
END_TIMEOUT_S = 10.0
ADMITTED, STALE = Verdict.ADMITTED, Verdict.STALE


class Asking(msgspec.Struct, frozen=True):
    """What askers got. `admitted` within the `seconds` that were measured, `admitted_in_all` with the warm-up.

    A wait is that of one admission, in seconds, from asking to the answer.
    """

    admitted: int
    admitted_in_all: int
    seconds: float
    wait_p50_s: float
    wait_p95_s: float

    @property
    def admitted_per_s(self) -> float:
        return self.admitted / self.seconds


class Askers:
    """Those of one meter, and what has become of their requests."""

    def __init__(self, meter: Meter, worker: str) -> None:
        self.admitted = 0
        self.waits_s: list[float] = []
        self.stopping = False
        self._meter = meter
        self._worker = worker
        self._numbers = itertools.count()

    async def ask(self, digest: str) -> None:
        """One asker, until all stop. Raises StoreUnavailable, and WrongAnswerError where it is refused."""
        meter = self._meter
        while not self.stopping:
            request_id = f"{self._worker}{next(self._numbers):016x}"
            began_s = monotonic()
            admission = await meter.admit(Asked(digest, meter.known(digest), COST, request_id))
            if admission.verdict == STALE:
                continue
            if admission.verdict != ADMITTED:
                raise WrongAnswerError(f"not admitted: {Verdict(admission.verdict).name}")
            self.waits_s.append(monotonic() - began_s)
            self.admitted += 1
            meter.settle(admission, SUCCESS)


def ask(url: str, digests: Sequence[str], askers: int, seconds: float) -> Asking:
    """Lets so many askers of these tokens, in turn, ask for so long. Raises WrongAnswerError."""
    command = [sys.executable, "-m", "loadtests.meter_askers", url, str(askers), str(seconds), *digests]
    timeout_s = WARM_UP_S + seconds + END_TIMEOUT_S
    try:
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise WrongAnswerError("the askers of the meter did not end") from error
    if ended.returncode:
        printed = ended.stderr.decode(errors="replace").strip()
        last = printed.rpartition("\n")[2]
        raise WrongAnswerError(f"the askers of the meter ended with {ended.returncode}: {last}\n{printed}")
    return msgspec.json.decode(ended.stdout, type=Asking)


async def measured(url: str, askers: int, seconds: float, digests: Sequence[str]) -> Asking:
    client = connect(url)
    store = MeterStore(client, Guard(client, Breaker()))
    worker = secrets.token_hex(8)
    meter = Meter(store, worker)
    running = asyncio.create_task(meter.run())
    try:
        asking = Askers(meter, worker)
        async with asyncio.TaskGroup() as group:
            for digest in itertools.islice(itertools.cycle(digests), askers):
                group.create_task(asking.ask(digest))
            await asyncio.sleep(WARM_UP_S)
            asking.waits_s.clear()
            began_s = monotonic()
            await asyncio.sleep(seconds)
            waits_s, spent_s = asking.waits_s[:], monotonic() - began_s
            asking.stopping = True
    finally:
        await end(running)
        await meter.close()
        store.close()
        await client.aclose()
    if not waits_s:
        raise WrongAnswerError("nothing was admitted")
    p50_s, p95_s = percentile(waits_s, 50), percentile(waits_s, 95)
    return Asking(len(waits_s), asking.admitted, spent_s, p50_s, p95_s)


def main(url: str, askers: str, seconds: str, *digests: str) -> int:
    try:
        asking = uvloop.run(measured(url, int(askers), float(seconds), digests))
    except Exception as error:
        first = error
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        print(f"{type(first).__name__}: {first}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(asking))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
