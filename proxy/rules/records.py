"""What a worker writes down of each request that it counts: one record of 56 bytes.

A record is bytes of bodies received and sent (u64), four times in seconds (float; 0.0: there is none), where its key
lies (u32), and at last the generation that it belongs to (u32). `struct` fills in the fields in their order, so a
record that ends with its generation is whole, whenever its writer was killed.
"""

import struct
from typing import Any

RECORD = struct.Struct("@QQddddII")
RECORD_BYTES = RECORD.size

REQUEST_BYTES_AT = 0
RESPONSE_BYTES_AT = 8
DURATION_AT = 16
HEAD_AT = 24
OVERHEAD_AT = 32
UPSTREAM_AT = 40
KEY_AT = 48
GENERATION_AT = 52


def column(records: memoryview, at: int, kind: str) -> "memoryview[Any]":
    """Returns one field of all records: the values of the type `kind` at byte `at` of each."""
    values: memoryview[Any] = records.cast(kind)  # type: ignore[call-overload]
    return values[at // values.itemsize :: RECORD_BYTES // values.itemsize]


def valid_bytes(area: memoryview, generation: int) -> int:
    """Returns how many bytes at the beginning of `area` are records of a generation.

    What lies there is records, of this generation and then of earlier ones, or zeros.
    """
    whole = area[: len(area) - len(area) % RECORD_BYTES]
    count = 0
    for each in column(whole, GENERATION_AT, "I"):
        if each != generation:
            break
        count += 1
    return count * RECORD_BYTES


def by_key(records: bytes) -> dict[int, bytes]:
    """Returns the records of each key. Where all have the same one, nothing is copied."""
    keys = column(memoryview(records), KEY_AT, "I").tolist()
    if len(set(keys)) == 1:
        return {keys[0]: records}
    groups: dict[int, list[bytes]] = {}
    for number, key in enumerate(keys):
        at = number * RECORD_BYTES
        groups.setdefault(key, []).append(records[at : at + RECORD_BYTES])
    return {key: b"".join(group) for key, group in groups.items()}
