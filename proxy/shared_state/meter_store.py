"""The call by which a worker has a batch decided: `meter.lua`, what it is given and what it gives back."""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from proxy.rules.access_tokens import AccessToken
from proxy.rules.batches import Admission, Answer, Batch
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.direct import direct
from proxy.shared_state.keys import METER_LEDGER, METER_READY, METER_TOKEN, METER_WORKERS
from proxy.shared_state.published import UNREADABLE
from proxy.shared_state.scripts import Script

log = logging.getLogger("relaygate")

UNCOUNTED = -1

_script = Script(Path(__file__).with_name("meter.lua"))
_encode = msgspec.msgpack.Encoder().encode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
_decode_record = msgspec.msgpack.Decoder(AccessToken).decode


class MeterStore:
    """Redis, as it decides batches."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard
        self._direct = direct(client)
        self._problem = ""

    def close(self) -> None:
        """Closes its connection. Nothing may be asked any more."""
        if self._direct is not None:
            self._direct.close()

    async def decide(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> Answer:
        """Has a batch decided, whose parts are of the tokens of these digests.

        `outcomes` are that of what has ended (empty: nothing has), then those of its withdrawals. Raises
        StoreUnavailable: nobody knows then whether the batch was decided, unless the reason is one of
        `batches.NOT_DECIDED`. It is `refused` where Redis answered with an error, or with what cannot be read.
        """
        keys = [METER_READY, METER_LEDGER, METER_WORKERS, *[METER_TOKEN + digest for digest in digests]]
        try:
            found = await _script.run(self._client, self._guard, keys, (_encode(batch), *outcomes), self._direct)
            answer = _answer(found) if found else None
        except (RedisError, OSError, *UNREADABLE) as error:
            self._tell(f"{type(error).__name__}: {error}")
            raise StoreUnavailable("refused") from error
        self._problem = ""
        if answer is None:
            raise StoreUnavailable("not_ready")
        return answer

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.error("redis does not decide about access tokens: %s", problem)
        self._problem = problem


def _answer(found: Sequence[bytes]) -> Answer:
    """Reads three numbers for each admission, and seven for each to which a bound applies, the first its place.

    A total of -1: nothing is counted.
    """
    numbers = _decode_numbers(found[0])
    each = [iter(numbers)] * 3
    admissions = [Admission(*three) for three in zip(*each, strict=True)]
    if UNCOUNTED in numbers[2::3]:
        for admission in admissions:
            if admission.total == UNCOUNTED:
                admission.remaining = admission.total = None
    if found[1]:
        each = [iter(_decode_numbers(found[1]))] * 7
        for at, per_minute, left, reset_ms, retry_ms, concurrent, running in zip(*each, strict=True):
            told = admissions[at]
            told.per_minute, told.left, told.reset_ms = per_minute, left, reset_ms
            told.retry_ms, told.concurrent, told.running = retry_ms, concurrent, running
    return Answer(admissions, [_decode_record(record) for record in found[2:]])
