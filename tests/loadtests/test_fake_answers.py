"""The providers' shapes: what a test may rely on in them."""

import json

from loadtests import fake_answers


def test_rate_limits_say_when_to_come_back() -> None:
    assert ("retry-after", "7") in fake_answers.openai_error(429).headers
    assert ("retry-after", "7") in fake_answers.anthropic_error(429).headers


def test_usage_is_streamed_only_where_it_is_asked_for() -> None:
    for usage, wanted in ((fake_answers.StreamUsage.ABSENT, False), (fake_answers.StreamUsage.LAST_CHUNK, True)):
        stream = b"".join(fake_answers.chat_completion_events("m", 2, usage))
        assert (b'"usage"' in stream) == wanted
        assert stream.endswith(b"data: [DONE]\n\n")


def test_sequence_numbers_of_responses_rise() -> None:
    events = [json.loads(event.partition(b"data: ")[2]) for event in fake_answers.response_events("m", 2)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_an_unknown_status_is_a_fault_of_the_server() -> None:
    assert fake_answers.anthropic_error(599).document["error"]["type"] == "api_error"
