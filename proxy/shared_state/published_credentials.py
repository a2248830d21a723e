"""The published credentials: how they lie in Redis, and how the control plane writes them there.

A **part** is what changed since the version that is published; the **whole** is written where that is not known: into a
Redis that has none, or those of another database. A version counts once it is written to its end, so a reader of
another one reads what it needs, or all.

The law of this file: each writing of the whole is a **generation**, a random name behind the empty id. While one is
being written, its name begins with `!`, and nobody reads. What belongs to another generation than its writer thinks is
not written at all; so the writer that began last wins, and none mixes its credentials into those of another one.
"""

import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from proxy.rules.credentials import Credential
from proxy.shared_state.bans import split_field
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import (
    BANS,
    BANS_CHANGES,
    CREDENTIALS,
    CREDENTIALS_CHANGES,
    CREDENTIALS_CHANNEL,
    CREDENTIALS_VERSION,
)
from proxy.shared_state.published import Mark, decode_mark, encode_mark
from proxy.shared_state.scripts import Script

KIND = "records"
"""Begins the announcement of a version on `CREDENTIALS_CHANNEL`."""

GENERATION = b""
"""The field of `CREDENTIALS` that has the generation's name. No credential has an empty id."""
UNFINISHED = b"!"

CHUNK = 500
"""So many are written or read by one call: a millisecond's work for Redis and for a worker's loop."""

_write = Script(Path(__file__).with_name("write_credentials.lua"))
_finish = Script(Path(__file__).with_name("finish_credentials.lua"))
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Credential)


class Replace(StrEnum):
    """Whether what is written is all that there is, or what changed since the version that is published."""

    WHOLE = "whole"
    PART = "part"


class Published(NamedTuple):
    """What is published: the version, and of which generation."""

    mark: Mark
    generation: bytes


def encode_credential(credential: Credential) -> bytes:
    return _encoder.encode(credential)


def decode_credential(data: bytes) -> Credential:
    """Raises one of `published.UNREADABLE` where it is none. Fields that this version does not know are passed over."""
    return _decoder.decode(data)


async def published_mark(client: Client, guard: Guard) -> Mark | None:
    """Returns which version is published; None where none is to its end: then the whole is to be written.

    Raises StoreUnavailable, and redis-py's errors where the keys are of other types.
    """
    found = await published(client, guard)
    return None if found is None else found.mark


async def publish_credentials(
    client: Client, guard: Guard, changed: Sequence[Credential], gone: Sequence[str], mark: Mark, replace: Replace
) -> None:
    """Publishes a version: credentials that it changed and ids that it removed, or else all that there are.

    The time of the marks is when their numbers began to count, so it stays from one version to the next; a smaller
    number than the published one, or another time, needs the whole. Raises StoreUnavailable: nothing, or not all, has
    been written then, and the version that was published still is, or none; its reason is `superseded` where another
    control plane has begun to write the whole.
    """
    if replace is Replace.WHOLE:
        generation = await _begin(client, guard)
    else:
        before = await published(client, guard)
        generation = b"" if before is None else before.generation
    writer = _Writer(client, guard, generation, mark, replace)
    await writer.write((credential.id, encode_credential(credential)) for credential in changed)
    if replace is Replace.WHOLE:
        gone = await writer.others({credential.id.encode() for credential in changed})
    await writer.write((credential, b"") for credential in gone)
    if gone:
        await _forget_bans(client, guard, {*gone})
    await writer.finish()


async def published(client: Client, guard: Guard) -> Published | None:
    """Returns what is published; None where nothing is, or not to its end."""
    mark, generation = await guard.call(lambda: _look(client))
    found = decode_mark(mark)
    if found is None or not generation or generation.startswith(UNFINISHED):
        return None
    return Published(found, generation)


async def begun(client: Client, guard: Guard) -> bool:
    """Tells whether anything is published, or being written; else nobody has ever published there."""
    return bool(await guard.call(lambda: client.hexists(CREDENTIALS, GENERATION)))  # type: ignore[arg-type,unused-ignore]


async def _look(client: Client) -> Any:
    async with client.pipeline(transaction=True) as pipe:
        pipe.get(CREDENTIALS_VERSION)
        pipe.hget(CREDENTIALS, GENERATION)  # type: ignore[arg-type,unused-ignore]
        return await pipe.execute()


async def _begin(client: Client, guard: Guard) -> bytes:
    """Begins a generation. Changes of earlier ones say nothing any more, and are forgotten."""
    generation = UNFINISHED + os.urandom(8).hex().encode()

    async def write() -> None:
        async with client.pipeline(transaction=True) as pipe:
            pipe.hset(CREDENTIALS, GENERATION, generation)  # type: ignore[arg-type,unused-ignore]
            pipe.execute_command("UNLINK", CREDENTIALS_CHANGES)  # a cluster's pipeline has no method for it
            await pipe.execute()

    await guard.call(write)
    return generation


class _Writer:
    """Writes one version."""

    def __init__(self, client: Client, guard: Guard, generation: bytes, mark: Mark, replace: Replace) -> None:
        self._client = client
        self._guard = guard
        self._generation = generation
        self._mark = mark
        self._replace = replace
        self._check(generation)

    async def write(self, records: Iterator[tuple[str, bytes]]) -> None:
        while chunk := list(islice(records, CHUNK)):
            pairs = [part for record in chunk for part in record]
            keys = (CREDENTIALS, CREDENTIALS_CHANGES)
            self._check(
                await _write.run(
                    self._client, self._guard, keys, (self._generation, self._mark.version, self._replace, *pairs)
                )
            )

    async def others(self, wanted: set[bytes]) -> list[str]:
        """Returns the ids of all credentials in Redis that are none of these."""
        found = set()
        cursor = 0
        while True:
            answer: Any = await self._guard.call(lambda at=cursor: self._client.hscan(CREDENTIALS, at, count=CHUNK))  # type: ignore[misc]
            cursor, records = answer
            found |= records.keys() - wanted - {GENERATION}
            if not int(cursor):
                return [name.decode(errors="replace") for name in found]

    async def finish(self) -> None:
        announcement = _encoder.encode([KIND, self._mark.version])
        keys = (CREDENTIALS, CREDENTIALS_VERSION)
        final = self._generation.removeprefix(UNFINISHED)
        arguments = (self._generation, final, encode_mark(self._mark), CREDENTIALS_CHANNEL, announcement)
        self._check(await _finish.run(self._client, self._guard, keys, arguments))

    def _check(self, mine: object) -> None:
        if not mine:
            raise StoreUnavailable("superseded")


async def _forget_bans(client: Client, guard: Guard, gone: set[str]) -> None:
    """Removes the bans of credentials that are gone, which workers forget by themselves."""
    cursor = 0
    while True:
        answer: Any = await guard.call(lambda at=cursor: client.hscan(BANS, at, count=CHUNK))  # type: ignore[misc]
        cursor, bans = answer
        fields = [field for field in bans if split_field(field)[0] in gone]
        if fields:
            await guard.call(lambda fields=fields: client.hdel(BANS, *fields))  # type: ignore[misc]
            await guard.call(lambda fields=fields: client.zrem(BANS_CHANGES, *fields))  # type: ignore[misc]
        if not int(cursor):
            return
