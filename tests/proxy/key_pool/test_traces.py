"""What is remembered of the latest requests."""

import msgspec

from proxy.key_pool.traces import TRACES_MAX, Look, Trace, Traces, Try


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
    for number in range(TRACES_MAX + 1):
        traces.pass_by((b"%d" % number, "/", "key", float(number), 200, b"", "", 0))
    assert traces.find("0") == []
    assert len(traces.find(str(TRACES_MAX))) == 1


def test_who_asks_gets_json_or_nothing() -> None:
    traces = Traces()
    trace = Trace("id", "/a", "gpt", "random", 3, 1.0, [Look(("default",), 2, 1, 0, {"dead": 1}, "key", "selected")])
    traces.add(trace)
    answer = traces.answer(b"id")
    assert answer is not None
    assert msgspec.json.decode(answer, type=list[Trace]) == [trace]
    assert traces.answer(b"\xff") is None
