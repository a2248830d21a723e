"""What backends say of their own load (reference 004's `report`), in the hash `keys.BACKEND_REPORTS`.

The control plane takes it and writes it; workers read it (`backend_feed.py`) and leave out what is old.
"""

import msgspec


class BackendReport(msgspec.Struct, frozen=True):
    """A backend's load: CPU and memory in per cent (0 to 100), the load average over a minute.

    `at_s` is when it came, in seconds since 1970, by the control plane's clock.
    """

    cpu_usage: float
    memory_usage: float
    load_avg_1: float
    at_s: float


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BackendReport)


def encode_report(report: BackendReport) -> bytes:
    return _encoder.encode(report)


def decode_report(data: bytes) -> BackendReport:
    """Raises one of `published.UNREADABLE` where it is none. Fields that this version does not know are passed over."""
    return _decoder.decode(data)
