"""The choice of the same member for the same address, for as long as it is usable.

Weighted rendezvous hashing (Thaler and Ravishankar, 1998; with weights Schindelhauer and Schomaker, 2005): for each
client each member draws a number, whose odds to be the best go by weight, and the client goes to the best member that
is usable. So who leaves gives up its own clients alone, to all others by weight; who comes takes its share alone; one
that is not usable for a while has its own clients again afterwards. All of it follows from ids and weights, so all
workers agree, and do after a restart.

Clients are taken together in slots, by CRC-32 of the address: it spreads the addresses of a network as evenly as
BLAKE2 does, and costs 0.2 µs. What members draw for a slot is looked at when its first client comes. With so many
slots, the shares of three members are 1 % off, and those of a hundred 8 %: the square root of (members - 1) / SLOTS.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import log
from zlib import crc32

from proxy.rules.balancing_base import Member

SLOTS = 16_384
DRAW_BYTES = 6
"""What a float holds exactly; Python counts with larger numbers at half the speed."""
DRAW_UNIT = 2.0 ** (-8 * DRAW_BYTES)
RANKED = 8
"""So many of the best are kept for a slot: of a thousand members, 16 million would be."""


class IpHash:
    """The best of those usable for a slot of addresses.

    A member that slowly starts gets its clients back slot by slot, each once. `weight` is looked at when a slot is
    ranked and must not change afterwards.
    """

    __slots__ = ("_members", "_ranked")

    def __init__(self, members: Sequence[Member], random01: Callable[[], float]) -> None:  # noqa: ARG002 - no chance
        self._members = members
        self._ranked: list[Sequence[Member] | None] = [None] * SLOTS

    def choose(self, usable: Sequence[Member], address: str) -> Member:
        slot = crc32(address.encode()) % SLOTS
        ranked = self._ranked[slot]
        if ranked is None:
            ranked = self._ranked[slot] = ranking(self._members, slot)[:RANKED]
        starting = None
        for member in ranked:
            if member.usable:
                if slot < member.share * SLOTS:
                    return member
                starting = starting or member
        return starting or ranking(usable, slot)[0]


def ranking(members: Sequence[Member], slot: int) -> list[Member]:
    """Returns these members, the best for a slot first, whatever their order."""
    label = slot.to_bytes(2, "little")
    return sorted(members, key=lambda member: draw(member, label))


def draw(member: Member, label: bytes) -> float:
    """Returns what a member draws: exponentially distributed with its weight as the rate, so the least is the best.

    The least of several such is each one's in proportion to its rate.
    """
    number = int.from_bytes(blake2b(label + member.id.encode(), digest_size=DRAW_BYTES).digest(), "little")
    return -log((number + 1) * DRAW_UNIT) / member.weight
