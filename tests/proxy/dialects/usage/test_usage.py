"""Which answers are read, and what requests are expected to take. Nothing raises, whatever comes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Estimates
from proxy.dialects.usage import AS_USUAL, FORMS, anthropic, asked, form_of, gemini, openai, reader, responses
from proxy.dialects.usage.forms import Form
from proxy.rules.access_tokens import AMOUNT_MAX
from proxy.rules.headers import Header
from proxy.rules.usage import Basis, Usage
from tests.proxy.dialects.usage.transcripts import DOCUMENTS, EVENTS, JSON, STREAMS

CHAT, MESSAGES, RESPONSES = b"/v1/chat/completions", b"/v1/messages", b"/v1/responses"
GEMINI = b"/v1beta/models/gemini-2.5-flash:generateContent"
ESTIMATES = Estimates(input_tokens=70, output_tokens=900)
PATHS = sorted({transcript.path for transcript in (*STREAMS.values(), *DOCUMENTS.values())})


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (CHAT, openai.FORM),
        (CHAT + b"?api-version=1", openai.FORM),
        (b"/api/v1/chat/completions/", openai.FORM),
        (b"/v1//Chat/%63ompletions", openai.FORM),
        (b"/v1/chat/x/..\\completions;a=b", openai.FORM),
        (b"/v1/completions", openai.FORM),
        (b"/v1/embeddings", openai.FORM),
        (RESPONSES, responses.FORM),
        (b"/v1/responses/compact", responses.FORM),
        (b"/v1/responses/resp_1", None),
        (b"/v1/responses/resp_1/input_items", None),
        (MESSAGES, anthropic.FORM),
        (b"/anthropic/V1/messages", anthropic.FORM),
        (b"/v1/messages/count_tokens", None),
        (b"/v1/messages/batches", None),
        (b"/v1/threads/t/messages", None),
        (b"/v1/projects/p/publishers/anthropic/models/c@1:streamRawPredict", anthropic.FORM),
        (b"/v1/projects/p/publishers/mistralai/models/m:rawPredict", None),
        (GEMINI, gemini.FORM),
        (b"/v1/models/g%3astreamGenerateContent", gemini.FORM),
        (b"/v1beta/models/g:countTokens", None),
        (b"/v1/models", None),
        (b"/?/v1/chat/completions", None),
        (b"", None),
    ],
)
def test_the_path_tells_the_form(path: bytes, form: Form | None) -> None:
    assert form_of(path) is form


@pytest.mark.parametrize("ending", [ending for ending, _ in AS_USUAL])
def test_what_is_found_at_once_is_found_by_the_table_too(ending: bytes) -> None:
    path = b"/v1/models/a" + ending
    assert form_of(path) is form_of(path + b"/") is dict(AS_USUAL)[ending]
    assert {form for _, form in AS_USUAL} == {form for _, form in FORMS}


@pytest.mark.parametrize(
    ("path", "status", "fields", "reads"),
    [
        (CHAT, 200, [(b"content-type", EVENTS)], True),
        (CHAT, 200, [(b"content-type", JSON)], True),
        (CHAT, 200, [(b"content-type", b"Application/JSON;charset=utf-8")], True),
        (CHAT, 201, [(b"content-type", JSON), (b"content-encoding", b" GZIP ")], True),
        (CHAT, 200, [(b"content-type", JSON), (b"content-encoding", b"identity")], True),
        (CHAT, 200, [(b"content-type", JSON), (b"content-encoding", b"gzip, br")], False),
        (CHAT, 200, [(b"content-type", b"text/html")], False),
        (CHAT, 200, [], False),
        (CHAT, 429, [(b"content-type", JSON)], False),
        (CHAT, 302, [(b"content-type", JSON)], False),
        (b"/v1/files", 200, [(b"content-type", JSON)], False),
    ],
)
def test_what_has_no_usage_is_not_read(path: bytes, status: int, fields: list[Header], reads: bool) -> None:  # noqa: FBT001
    assert (reader(path, status, fields) is not None) is reads


@pytest.mark.parametrize(
    ("path", "document", "output"),
    [
        (CHAT, {"max_tokens": 50}, 50),
        (CHAT, {"max_completion_tokens": 60}, 60),
        (CHAT, {"max_tokens": 50, "max_completion_tokens": 60, "n": 3}, 180),
        (CHAT, {"max_tokens": 50, "n": None}, 50),
        (CHAT, {"n": 2}, 1800),
        (b"/v1/completions", {"max_tokens": 50, "n": 2, "best_of": 4}, 200),
        # A field of another form does not hold here: the upstream would not heed it.
        (CHAT, {"max_output_tokens": 1}, 900),
        (RESPONSES, {"max_output_tokens": 77}, 77),
        (RESPONSES, {"max_tokens": 1, "max_output_tokens": None}, 900),
        (MESSAGES, {"max_tokens": 1024, "n": 5}, 1024),
        (MESSAGES, {}, 900),
        (GEMINI, {"generationConfig": {"maxOutputTokens": 200, "candidateCount": 2}}, 400),
        (GEMINI, {"generation_config": {"max_output_tokens": 200, "candidate_count": 2}}, 400),
        (GEMINI, {"generationConfig": {"maxOutputTokens": "200"}}, 200),
        (GEMINI, {"generationConfig": {"candidateCount": 3}}, 2700),
        (GEMINI, {"generationConfig": None, "contents": []}, 900),
        (GEMINI, {"maxOutputTokens": 5}, 900),
        # What no upstream would heed.
        (CHAT, {"max_tokens": -1}, 900),
        (CHAT, {"max_tokens": 0}, 900),
        (CHAT, {"max_tokens": True}, 900),
        (CHAT, {"max_tokens": 1.5}, 900),
        (CHAT, {"max_tokens": 1e3}, 1000),
        (CHAT, {"max_tokens": "many"}, 900),
        (CHAT, {"max_tokens": "9" * 5000}, 900),
        (CHAT, {"max_tokens": [[1]]}, 900),
        (CHAT, {"max_tokens": 10**30}, AMOUNT_MAX),
        (CHAT, {"max_tokens": AMOUNT_MAX, "n": 10**30}, AMOUNT_MAX),
        (CHAT, {"max_tokens": 7, "n": -3}, 7),
        (CHAT, {"max_tokens": 7, "n": "x"}, 7),
    ],
)
def test_output_is_expected_as_far_as_the_request_allows(path: bytes, document: object, output: int) -> None:
    body = msgspec.json.encode(document)
    assert asked(path, body, len(body), ESTIMATES) == Usage(-(-len(body) // 4), output)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES, GEMINI])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"max_tokens": NaN}',
        b'{"max_tokens": 1e999, "max_output_tokens": 1e999}',
        b'{"max_tokens": 5',
        b'{"generationConfig": [1]}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_says_nothing_is_taken_as_configured(path: bytes, body: bytes) -> None:
    assert asked(path, body, None, ESTIMATES) == Usage(70, 900)


def test_input_is_four_bytes_a_token_rounded_up() -> None:
    inputs = [(asked(CHAT, b"", length, ESTIMATES) or Usage()).input for length in (-1, 0, 1, 4, 5, 4000)]
    assert inputs == [0, 0, 1, 1, 2, 1000]


def test_of_a_path_without_usage_nothing_is_expected() -> None:
    assert asked(b"/v1/models", b"", 0, ESTIMATES) is None


NAMES = (
    "usage",
    "usageMetadata",
    "message",
    "delta",
    "response",
    "choices",
    "candidates",
    "x_groq",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "n",
    "prompt_tokens_details",
    "cached_tokens",
    "promptTokenCount",
    "candidatesTokenCount",
    "stop_reason",
    "finish_reason",
    "finishReason",
    "max_tokens",
    "max_output_tokens",
    "generationConfig",
    "content",
    "maxOutputTokens",
    "totalTokenCount",
    "cachedContentTokenCount",
    "thoughtsTokenCount",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=15,
)


@given(st.sampled_from(PATHS), VALUES, st.binary(max_size=20))
def test_any_document_can_be_read(path: bytes, document: object, tail: bytes) -> None:
    body = msgspec.json.encode(document)
    expected = asked(path, body, len(body), ESTIMATES)
    assert expected is not None
    assert 0 < expected.output <= AMOUNT_MAX
    for content_type, answer in ((JSON, body), (JSON, body + tail), (EVENTS, b"data: " + body + b"\n\n" + tail)):
        read = reader(path, 200, [(b"content-type", content_type)])
        assert read is not None
        read.feed(answer)
        usage, _ = read.result(expected)
        assert all(0 <= figure <= 2 * AMOUNT_MAX for figure in msgspec.structs.astuple(usage))


@given(
    st.sampled_from(PATHS),
    st.sampled_from([EVENTS, JSON]),
    st.sampled_from([b"", b"gzip", b"deflate", b"br", b"zstd"]),
    st.lists(st.binary(max_size=60)),
)
def test_any_bytes_can_be_read(path: bytes, content_type: bytes, coding: bytes, pieces: list[bytes]) -> None:
    read = reader(path, 200, [(b"content-type", content_type), (b"content-encoding", coding)])
    assert read is not None
    for piece in pieces:
        read.feed(piece)
    assert read.result(Usage(3, 4)) == (Usage(3, 4), Basis.UNKNOWN)
