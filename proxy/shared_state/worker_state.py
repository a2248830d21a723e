"""What a worker says of itself every second, in the hash `keys.WORKERS`, for as long as it lives.

Who reads it judges by his own clock: a worker whose entry has not changed for some seconds is gone.
"""

import msgspec


class WorkerState(msgspec.Struct, frozen=True):
    """A worker: where it runs, what it does, and what it keeps back.

    Times are Unix time, by its machine's clock; `time_s` changes with each beat. `configuration` is the published
    version in use, 0 before the first; `memory_bytes` its resident set; `unsent` how many requests it has counted that
    Redis has not confirmed; `tls` the SHA-256, in hexadecimal, of the certificate that its clients are shown, empty
    where it listens without TLS.
    """

    name: str
    host: str
    pid: int
    program: str
    started_s: float
    time_s: float
    configuration: int
    in_flight: int
    memory_bytes: int
    unsent: int
    tls: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WorkerState)


def encode_state(state: WorkerState) -> bytes:
    return _encoder.encode(state)


def decode_state(data: bytes) -> WorkerState:
    """Raises msgspec.DecodeError where it is none. Fields that this version does not know are passed over."""
    return _decoder.decode(data)
