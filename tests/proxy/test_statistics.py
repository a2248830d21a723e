"""What is counted adds up, in any order; and records count for what they say."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.histogram import Histogram
from proxy.rules.records import RECORD
from proxy.statistics import STATUS_CLASSES, UNMATCHED, Counts, Key, RouteCounts, StatisticsDelta, merged
from tests.proxy.counting import folded

small = st.integers(0, 1000)
counts = st.builds(Counts, small, small, small, small, small)
histograms = st.builds(Histogram, st.dictionaries(small, st.integers(1, 9), max_size=4), small)
rows = st.builds(
    RouteCounts,
    st.sampled_from(["", "/a", "/b"]),
    st.sampled_from(["", "up.example"]),
    st.dictionaries(st.sampled_from(["2xx", "5xx", "closed"]), counts, max_size=3),
    histograms,
    histograms,
    histograms,
    histograms,
    st.integers(0, 1000).map(float),
)
tables = st.lists(rows, max_size=6)


def histogram_of(*seconds: float) -> Histogram:
    histogram = Histogram()
    histogram.record(seconds)
    return histogram


def test_records_count_for_what_they_say() -> None:
    keys = {
        5: Key("/a", "a.example", "2xx", 0, truncated=False, opened=False),
        6: Key("/a", "a.example", "closed", 1, truncated=True, opened=False),
        7: Key("/b", "b.example", "1xx", 0, truncated=False, opened=True),
    }
    records = [
        RECORD.pack(1, 10, 0.25, 0.125, 0.0625, 0.1875, 5, 1),
        RECORD.pack(3, 30, 9.0, 0.5, 0.25, 8.75, 7, 1),
        RECORD.pack(2, 20, 4.0, 0.0, 0.0, 0.0, 6, 1),
        RECORD.pack(4, 40, 0.75, 0.125, 0.0625, 0.6875, 5, 1),
    ]
    assert folded(b"".join(records), keys) == {
        ("/a", "a.example"): RouteCounts(
            prefix="/a",
            authority="a.example",
            outcomes={
                "2xx": Counts(requests=2, request_bytes=5, response_bytes=50),
                "closed": Counts(requests=1, request_bytes=2, response_bytes=20, retries=1, truncated=1),
            },
            durations=histogram_of(0.25, 0.75, 4.0),
            heads=histogram_of(0.125, 0.125),
            overheads=histogram_of(0.0625, 0.0625),
            upstreams=histogram_of(0.1875, 0.6875),
        ),
        ("/b", "b.example"): RouteCounts(
            prefix="/b",
            authority="b.example",
            outcomes={"1xx": Counts(requests=1, request_bytes=3, response_bytes=30)},
            heads=histogram_of(0.5),
            overheads=histogram_of(0.25),
        ),
    }


def test_every_status_has_one_of_a_few_classes() -> None:
    assert [STATUS_CLASSES[status] for status in (101, 200, 299, 404, 599, 999)] == [
        "1xx",
        "2xx",
        "2xx",
        "4xx",
        "5xx",
        "9xx",
    ]
    assert len(set(STATUS_CLASSES)) == 10
    assert not UNMATCHED.startswith("/")


@given(tables)
def test_a_delta_survives_the_wire(table: list[RouteCounts]) -> None:
    delta = StatisticsDelta("worker", 1.5, 1, 2.5, table)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=StatisticsDelta) == delta
    assert msgspec.json.decode(msgspec.json.encode(delta), type=StatisticsDelta) == delta


@given(tables, tables, tables)
def test_rows_add_up_in_any_order(
    first: list[RouteCounts], second: list[RouteCounts], third: list[RouteCounts]
) -> None:
    whole = merged([*first, *second, *third])
    assert merged([*third, *first, *second]) == whole
    assert merged([*merged([*first, *second]), *third]) == merged([*first, *merged([*second, *third])]) == whole
    assert len({(row.prefix, row.authority) for row in whole}) == len(whole)


@given(tables)
def test_merging_leaves_what_is_merged_as_it_is(table: list[RouteCounts]) -> None:
    before = msgspec.msgpack.encode(table)
    merged([*table, *table])
    assert msgspec.msgpack.encode(table) == before
