"""The bans as they lie in Redis, and the one way in which they are changed there: compare-and-set of one of them.

The law of this file: what is compared are bytes. A ban that came from Redis is expected there as it came, and not as
this version of the program would spell it.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import msgspec
from redis.exceptions import RedisError

from proxy.rules.credentials import ALL_MODELS, Ban
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BANS, BANS_CHANGES, BANS_VERSION, CREDENTIALS_CHANNEL
from proxy.shared_state.linked_key_pool import Put
from proxy.shared_state.scripts import Script

log = logging.getLogger("relaygate")

KIND = "bans"
"""Begins the announcement of a ban on `CREDENTIALS_CHANNEL`."""

SEPARATOR = b"\0"

_script = Script(Path(__file__).with_name("put_ban.lua"))
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Ban)

_BEFORE_NUMBER = b"\x94" + _encode(KIND)
"""An array of four, and its first."""


class Known(NamedTuple):
    """A ban's bytes, as the change of this number left them, or a later one."""

    number: int
    data: bytes


class BanStore:
    """The bans in Redis, as far as this worker knows them. `BanView` keeps `known` up to date."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard
        self._problem = ""
        self.known: dict[bytes, Known] = {}
        """By field. Absent: none, as far as is known."""
        self.unshared: dict[bytes, Ban | None] = {}
        """What was decided and could not be put: to be put once Redis is there, unless it then says otherwise."""

    async def put(self, credential: str, model: str, expected: Ban | None, new: Ban | None) -> Put:
        """Puts `new` where `expected` is (None: none); returns whether it did, and what is there now.

        Raises StoreUnavailable where nobody can tell; it is tried again then, once Redis is there (`BanView`).
        """
        field = field_of(credential, model)
        data = b"" if new is None else encode_ban(new)
        after_number = _encode([field, data or None])[1:]
        arguments = (field, self._bytes_of(field, expected), data, CREDENTIALS_CHANNEL, _BEFORE_NUMBER, after_number)
        try:
            won, number, there = await _script.run(
                self._client, self._guard, (BANS, BANS_VERSION, BANS_CHANGES), arguments
            )
        except StoreUnavailable:
            self.unshared[field] = new
            raise
        except (RedisError, OSError) as error:
            self.unshared[field] = new
            self._tell(f"{type(error).__name__}: {error}")
            raise StoreUnavailable("refused") from error
        self.unshared.pop(field, None)
        self.note(field, there, number)
        return Put(won=bool(won), there=new if won else decode_ban(there))

    def note(self, field: bytes, data: bytes, number: int) -> None:
        """Remembers what is in Redis (empty: nothing) as of the change of this number."""
        if data:
            self.known[field] = Known(number, data)
        else:
            self.known.pop(field, None)

    def _bytes_of(self, field: bytes, ban: Ban | None) -> bytes:
        known = self.known.get(field)
        if known is not None and decode_ban(known.data) == ban:
            return known.data
        return b"" if ban is None else encode_ban(ban)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.error("a ban is not shared: %s", problem)
        self._problem = problem


def encode_ban(ban: Ban) -> bytes:
    return _encode(ban)


def decode_ban(data: bytes) -> Ban | None:
    """Returns a ban; None where there is none, or nothing that this version can read."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def field_of(credential: str, model: str) -> bytes:
    """Returns under which name a ban lies in the hash: the credential's id, and behind a NUL the model."""
    return credential.encode() if model == ALL_MODELS else credential.encode() + SEPARATOR + model.encode()


def split_field(field: bytes) -> tuple[str, str]:
    """Returns the credential's id and the model."""
    credential, _, model = field.partition(SEPARATOR)
    return credential.decode(errors="replace"), model.decode(errors="replace")
