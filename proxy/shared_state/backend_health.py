"""What the control plane knows of the health of backends: how it lies in Redis, how it is read and written.

The control plane writes it (`admin/health_checks.py`), workers read it (`backend_feed.py`). With the states lies a
beat, which changes every few seconds for as long as somebody checks: without one the hash says nothing, as where Redis
has lost it, and where it stands still for long nobody checks any more.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from proxy.shared_state.backend_names import field_of, name_of
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_HEALTH, BACKENDS_CHANNEL
from proxy.shared_state.linked_groups import Name
from proxy.shared_state.published import UNREADABLE

BEAT = b""
"""The field of the beat: when it was written, in milliseconds since 1970."""
HEALTH = b"health"
"""What is announced. Who hears it reads the hash."""


class BackendHealth(msgspec.Struct, frozen=True):
    """What came of the checks of a backend.

    It is so since `since_s`, and was last checked at `checked_s` (seconds since 1970, by the control plane's clock; a
    newer time may be some seconds late). `reason` says in words why it is unhealthy.
    """

    healthy: bool
    since_s: float
    checked_s: float
    reason: str = ""


class Board(NamedTuple):
    """What lies in Redis: the beat, None without one, and the states."""

    beat: bytes | None
    states: dict[Name, BackendHealth]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BackendHealth)


def encode_health(health: BackendHealth) -> bytes:
    return _encoder.encode(health)


def decode_health(data: bytes) -> BackendHealth:
    """Raises one of `published.UNREADABLE` where it is none. Fields that this version does not know are passed over."""
    return _decoder.decode(data)


def board_of(found: Mapping[bytes, bytes]) -> Board:
    """Returns what a hash says. What this version cannot read is left out."""
    states = {}
    for field, data in found.items():
        name = name_of(field)
        if name is not None:
            try:
                states[name] = decode_health(data)
            except UNREADABLE:
                continue
    return Board(found.get(BEAT), states)


async def read_health(client: Client, guard: Guard) -> dict[bytes, bytes]:
    """Returns the hash as it is. Raises StoreUnavailable, RedisError."""
    found: Any = await guard.call(lambda: client.hgetall(BACKEND_HEALTH))  # type: ignore[arg-type,return-value,unused-ignore]
    return dict(found)


async def write_health(
    client: Client, guard: Guard, states: Mapping[Name, BackendHealth], gone: Collection[bytes], beat_ms: int | None
) -> None:
    """Writes states, removes fields, and the beat where it is given. Raises StoreUnavailable, RedisError."""
    fields = {field_of(name): encode_health(health) for name, health in states.items()}
    if beat_ms is not None:
        fields[BEAT] = b"%d" % beat_ms

    async def write() -> None:
        async with client.pipeline(transaction=True) as pipe:
            if gone:
                pipe.hdel(BACKEND_HEALTH, *gone)  # type: ignore[arg-type,unused-ignore]
            if fields:
                pipe.hset(BACKEND_HEALTH, mapping=fields)  # type: ignore[arg-type,unused-ignore]
            await pipe.execute()

    await guard.call(write)


async def announce_health(client: Client, guard: Guard) -> None:
    """Tells all workers to read. Raises StoreUnavailable, RedisError."""
    await guard.call(lambda: client.publish(BACKENDS_CHANNEL, HEALTH))
