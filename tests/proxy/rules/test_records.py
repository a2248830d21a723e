"""A record is read as it was written, and only if it was written whole."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.records import (
    DURATION_AT,
    GENERATION_AT,
    HEAD_AT,
    KEY_AT,
    OVERHEAD_AT,
    RECORD,
    RECORD_BYTES,
    REQUEST_BYTES_AT,
    RESPONSE_BYTES_AT,
    UPSTREAM_AT,
    by_key,
    column,
    valid_bytes,
)


def record(key: int = 0, generation: int = 1) -> bytes:
    return RECORD.pack(1, 2, 3.0, 4.0, 5.0, 6.0, key, generation)


def test_each_field_is_where_it_is_read() -> None:
    memory = memoryview(record(7, 8) * 3)
    places = [REQUEST_BYTES_AT, RESPONSE_BYTES_AT, DURATION_AT, HEAD_AT, OVERHEAD_AT, UPSTREAM_AT, KEY_AT]
    values = [column(memory, at, kind).tolist() for at, kind in zip([*places, GENERATION_AT], "QQddddII", strict=True)]
    assert values == [[value] * 3 for value in range(1, 9)]


def test_records_count_up_to_the_first_of_another_generation() -> None:
    area = memoryview(record(generation=2) * 2 + record(generation=1) + record(generation=2) + bytes(100))
    assert valid_bytes(area, 2) == 2 * RECORD_BYTES
    assert valid_bytes(area, 3) == 0
    assert valid_bytes(memoryview(record() * 3), 1) == 3 * RECORD_BYTES


def test_a_record_that_is_not_whole_does_not_count() -> None:
    before, after = record(generation=1), record(key=9, generation=2)
    for written in range(RECORD_BYTES):
        torn = after[:written] + before[written:]
        assert valid_bytes(memoryview(torn), 2) == (RECORD_BYTES if torn == after else 0)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_records_of_a_key_stay_together(keys: list[int]) -> None:
    records = [record(key, number) for number, key in enumerate(keys)]
    groups = {key: [each for each, own in zip(records, keys, strict=True) if own == key] for key in keys}
    assert by_key(b"".join(records)) == {key: b"".join(group) for key, group in groups.items()}
