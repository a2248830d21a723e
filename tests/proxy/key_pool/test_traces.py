"""What is remembered of the latest requests."""

import msgspec

from proxy.key_pool.traces import BLOCK, LATEST_MAX, TRACES_MAX, Look, Trace, Traces, Try


def test_a_request_is_found_by_its_id_the_newest_first() -> None:
    traces = Traces()
    old = Trace("same", "/a", "gpt", "random", 3, 1.0)
    traces.add(old)
    traces.pass_by((b"same", "/b", "key_1", 2.0, 200, b"h:1", "random", 7))
    traces.pass_by((b"other", "/b", "key_1", 2.0, 200, b"h:1", "random", 7))
    newest, oldest = traces.find("same")
    assert oldest is old
    assert (newest.route, newest.version, newest.tries) == ("/b", 7, [Try("key_1", "h:1", 0.0, 200, "success")])
    assert traces.find("nobody's") == []


def test_old_ones_are_forgotten() -> None:
    traces = Traces()
    count = TRACES_MAX + 3 * BLOCK
    for number in range(count):
        traces.pass_by((b"%d" % number, "/", "key", float(number), 200, b"", "", 0))
    remembered = [number for number in range(count) if traces.find(str(number))]
    assert remembered == list(range(count - len(remembered), count))
    assert TRACES_MAX <= len(remembered) < TRACES_MAX + 2 * BLOCK


def test_what_is_packed_is_what_it_was() -> None:
    traces = Traces()
    for number in range(2 * BLOCK):
        traces.pass_by((b"one-%d" % (number % 2), "/a", f"key_{number}", float(number), 201, b"h:1", "random", 7))
    found = traces.find("one-1")
    assert [trace.tries for trace in found] == [
        [Try(f"key_{number}", "h:1", 0.0, 201, "success")] for number in reversed(range(1, 2 * BLOCK, 2))
    ]
    assert {(trace.route, trace.algorithm, trace.version) for trace in found} == {("/a", "random", 7)}
    assert traces.find("one") == []


def test_the_latest_of_both_kinds_are_told_the_newest_first() -> None:
    traces = Traces()
    assert msgspec.json.decode(traces.answer_latest()) == []
    for number in range(LATEST_MAX):
        traces.pass_by((b"%d" % number, "/", "key", float(number), 200, b"", "", 0))
    traces.add(Trace("last", "/a", "gpt", "random", 3, 1e6))
    traces.add(Trace("middle", "/a", "gpt", "random", 3, LATEST_MAX - 1.5))
    told = [trace.request_id for trace in msgspec.json.decode(traces.answer_latest(), type=list[Trace])]
    assert told[:4] == ["last", str(LATEST_MAX - 1), "middle", str(LATEST_MAX - 2)]
    assert len(told) == LATEST_MAX


def test_who_asks_gets_json_or_nothing() -> None:
    traces = Traces()
    trace = Trace("id", "/a", "gpt", "random", 3, 1.0, [Look(("default",), 2, 1, 0, {"dead": 1}, "key", "selected")])
    traces.add(trace)
    answer = traces.answer(b"id")
    assert answer is not None
    assert msgspec.json.decode(answer, type=list[Trace]) == [trace]
    assert traces.answer(b"\xff") is None
