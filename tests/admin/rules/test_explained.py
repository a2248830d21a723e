"""A trace is told in words, and what is not understood stays as it is."""

from typing import Any

import msgspec

from admin.rules.explained import NO_KEYS, explained, line
from proxy.key_pool.traces import BackendLook, Look, Over, Trace, Try


def told(trace: Trace) -> dict[str, Any]:
    return explained(msgspec.to_builtins(trace))


def test_each_look_and_attempt_has_its_words() -> None:
    over = Over("key_1", "", "out_of_quota", 60.0)
    looks = [
        Look(("main",), 3, 2, 0, {"out_of_quota": 1}, "key_2", "selected", [over]),
        Look(("main", "spare"), 3, 2, 1, {}, "key_3", "probe"),
    ]
    tries = [
        Try("key_2", "h:1", 1.0, 429, "rate_limited", wait_s=2.5),
        Try("key_3", "h:1", 2.0, 0, "failed", "upstream_closed"),
    ]
    found = told(Trace("id", "/a", "gpt", "random", 7, 0.5, looks, tries))
    assert found["message"] == (
        "2 attempts, under configuration 7; key_2 answered 429 (rate_limited, to wait 2.5 s); "
        "key_3 gave no answer (failed, upstream_closed)"
    )
    assert [look["message"] for look in found["looks"]] == [
        "2 of 3 usable in group main; banned: 1 out_of_quota; key_2, selected",
        "2 of 3 usable in groups main, spare; 1 tried already; key_3, probe",
    ]
    assert found["looks"][0]["passed_over"] == [
        {"credential": "key_1", "model": "", "cause": "out_of_quota", "until_s": 60.0}
    ]
    assert found["tries"][0]["message"] == "key_2 answered 429 (rate_limited, to wait 2.5 s)"
    assert found["version"] == 7


def test_backends_are_told_with_why_not_others() -> None:
    backends = [
        BackendLook("up", 4, 2, 1, {"unhealthy": 1, "draining": 1}, "b"),
        BackendLook("up", 1, 0, 0, {"full": 1}),
    ]
    tries = [Try("", "h:1", 1.0, 0, "failed", "connect_refused"), Try("", "h:2", 2.0, 200, "success")]
    found = told(Trace("id", "/a", "", "weight", 7, 0.5, [], tries, backends=backends))
    assert found["message"] == (
        "2 attempts, under configuration 7; h:1 gave no answer (failed, connect_refused); h:2 answered 200 (success)"
    )
    assert [look["message"] for look in found["backends"]] == [
        "2 of 4 backends usable in upstream up; 1 tried already; 1 draining, 1 unhealthy; b",
        "0 of 1 backends usable in upstream up; 1 full; none chosen",
    ]


def test_a_request_without_a_credential_says_so() -> None:
    found = told(Trace("id", "/a", "", "random", 7, 0.5, [Look(("main",), 0, 0, 0, {})], [], "no_credential"))
    assert found["message"] == "no attempt, under configuration 7; ended with no_credential"
    assert found["looks"][0]["message"] == "0 of 0 usable in group main; none chosen"


def test_a_request_that_found_no_key_at_all_says_that_there_is_none() -> None:
    found = told(Trace("id", "/a", "", "random", 7, 0.5, [], [], "no_credential"))
    assert found["message"] == f"no attempt, under configuration 7; ended with no_credential; {NO_KEYS}"


def test_a_time_that_was_not_noted_is_none() -> None:
    found = told(Trace("id", "/a", "", "random", 7, 0.5, [], [Try("key_1", "h:1", 0.0, 200, "success")]))
    assert found["tries"][0]["ended_s"] is None


def test_what_another_version_remembers_stays_as_it_is() -> None:
    assert explained({"request_id": "id", "more": 1}) == {"request_id": "id", "more": 1}


def test_a_trace_is_a_line_by_its_last_attempt() -> None:
    tries = [Try("key_2", "h:1", 1.0, 429, "rate_limited"), Try("key_3", "h:1", 2.0, 200, "success")]
    assert line(msgspec.to_builtins(Trace("id", "/a", "gpt", "random", 7, 1.5, [], tries))) == {
        "time": 1500,
        "request_id": "id",
        "route": "/a",
        "model": "gpt",
        "status": 200,
        "credential": "key_3",
        "attempts": 2,
        "error": None,
        "message": "2 attempts, under configuration 7; key_2 answered 429 (rate_limited); key_3 answered 200 (success)",
    }
    found = line(msgspec.to_builtins(Trace("id", "/a", "", "random", 7, 1.5, [], [], "no_credential")))
    assert found is not None
    assert (found["status"], found["credential"], found["error"]) == (0, "", "no_credential")
    assert line({"of": "another version"}) is None
