"""What is counted is handed on once: deltas add up to the whole, however they were cut and in whatever order."""

import gc

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.rules.histogram import Histogram
from proxy.statistics import (
    SETTLE_MIN,
    STATUS_CLASSES,
    UNMATCHED,
    Counts,
    RouteCounts,
    Statistics,
    StatisticsDelta,
    Tally,
    merged,
)

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
    st.integers(0, 1000).map(float),
)
tables = st.lists(rows, max_size=6)


def counted(tally: Tally, outcome: str = "2xx", duration_s: float = 0.25) -> None:
    """Counts one request, as `phases/account.py` does."""
    route = tally.counts or tally.begin()
    route.outcomes.setdefault(outcome, Counts()).requests += 1
    tally.durations_s.append(duration_s)


def histogram_of(*seconds: float) -> Histogram:
    histogram = Histogram()
    histogram.record(seconds)
    return histogram


def test_a_delta_has_what_was_counted_since_the_last_one() -> None:
    statistics = Statistics("worker", 5.0)
    a, b = statistics.tally("/a", "a.example"), statistics.tally("/b", "b.example:81")
    counted(a)
    counted(a, "closed", 4.0)
    a.heads_s.append(0.125)
    row = RouteCounts(
        prefix="/a",
        authority="a.example",
        outcomes={"2xx": Counts(requests=1), "closed": Counts(requests=1)},
        durations=histogram_of(0.25, 4.0),
        heads=histogram_of(0.125),
        last_s=6.0,
    )
    assert statistics.delta(6.0, 3) == StatisticsDelta("worker", 5.0, 1, 6.0, 3, [row])
    assert statistics.delta(7.0, 0) == StatisticsDelta("worker", 5.0, 2, 7.0, 0, [])
    counted(b)
    counted(a)
    third = statistics.delta(8.0, 0)
    assert [(each.prefix, each.outcomes["2xx"].requests, each.last_s) for each in third.routes] == [
        ("/b", 1, 8.0),
        ("/a", 1, 8.0),
    ]


def test_a_delta_is_not_changed_by_what_is_counted_later() -> None:
    statistics = Statistics("worker", 0.0)
    tally = statistics.tally("/a", "a.example")
    counted(tally)
    before = statistics.delta(1.0, 0)
    wire = msgspec.msgpack.encode(before)
    counted(tally)
    statistics.delta(2.0, 0)
    assert msgspec.msgpack.encode(before) == wire


def test_a_delta_survives_the_wire() -> None:
    statistics = Statistics("worker", 1.5)
    counted(statistics.tally("/a", "a.example"), "closed")
    delta = statistics.delta(2.5, 1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=StatisticsDelta) == delta
    assert msgspec.json.decode(msgspec.json.encode(delta), type=StatisticsDelta) == delta


def test_a_route_keeps_its_tally_while_anybody_has_it() -> None:
    statistics = Statistics("worker", 0.0)
    tally = statistics.tally("/a", "a.example")
    assert statistics.tally("/a", "a.example") is tally
    assert statistics.tally("/a", "b.example") is not tally
    assert statistics.tally("/b", "a.example") is not tally


def test_a_route_that_is_gone_leaves_its_counts_and_then_nothing() -> None:
    statistics = Statistics("worker", 0.0)
    for number in range(100):
        counted(statistics.tally("/a", f"{number}.example"))
    again = statistics.tally("/a", "0.example")
    counted(again)
    delta = statistics.delta(1.0, 0)
    assert len(delta.routes) == 100
    assert delta.routes[0].outcomes["2xx"].requests == 2
    del again, delta
    gc.collect()
    assert not statistics._tallies


def test_latencies_do_not_pile_up_between_deltas() -> None:
    statistics = Statistics("worker", 0.0)
    busy, quiet, tunnels = (statistics.tally(prefix, "") for prefix in ("/busy", "/quiet", "/tunnels"))
    counted(quiet)
    tunnels.begin()
    for _ in range(SETTLE_MIN):
        counted(busy)
        tunnels.heads_s.append(0.5)
    statistics.settle()
    assert (len(busy.durations_s), len(tunnels.heads_s), len(quiet.durations_s)) == (0, 0, 1)
    counted(busy)
    by_prefix = {row.prefix: row for row in statistics.delta(1.0, 0).routes}
    assert by_prefix["/busy"].durations == histogram_of(*[0.25] * (SETTLE_MIN + 1))
    assert by_prefix["/tunnels"].heads.count == SETTLE_MIN
    assert by_prefix["/quiet"].durations.count == 1


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


class Life(RuleBasedStateMachine):
    """A worker counts, settles, publishes and reloads in any order; the consumer's total is always the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics = Statistics("worker", 0.0)
        self.snapshot = [self.statistics.tally(prefix, "up.example") for prefix in "abc"]
        self.told: list[RouteCounts] = []
        self.sequence = 0
        self.expected: dict[str, list[float]] = {}

    @rule(route=st.integers(0, 2), duration_s=st.floats(0.001, 1000))
    def count(self, route: int, duration_s: float) -> None:
        tally = self.snapshot[route]
        counted(tally, duration_s=duration_s)
        self.expected.setdefault(tally.prefix, []).append(duration_s)

    @rule(route=st.integers(0, 2))
    def count_many(self, route: int) -> None:
        for _ in range(SETTLE_MIN):
            self.count(route, 0.5)

    @rule()
    def settle(self) -> None:
        self.statistics.settle()

    @rule(prefixes=st.lists(st.sampled_from("abcde"), min_size=3, max_size=3))
    def reload(self, prefixes: list[str]) -> None:
        self.snapshot = [self.statistics.tally(prefix, "up.example") for prefix in prefixes]

    @rule()
    def publish(self) -> None:
        delta = self.statistics.delta(1.0, 0)
        self.sequence += 1
        assert delta.sequence == self.sequence
        self.told = merged([*delta.routes, *self.told])

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        waiting = [row for tally in self.statistics._touched if (row := tally.counts)]
        total = {row.prefix: row.outcomes["2xx"].requests for row in merged([*self.told, *waiting])}
        assert total == {prefix: len(each) for prefix, each in self.expected.items()}

    def teardown(self) -> None:
        self.publish()
        assert {row.prefix: row.durations.counts for row in self.told} == {
            prefix: histogram_of(*each).counts for prefix, each in self.expected.items()
        }


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=30)
