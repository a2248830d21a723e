"""Recorded answers of each form: whole, cut at every byte, coded and cut at every byte, and ended too early."""

import itertools
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator

import brotli
import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from loadtests import fake_answers
from proxy.dialects.codings import PLAIN_BYTES_MAX
from proxy.dialects.usage import form_of, openai, reader
from proxy.dialects.usage.readers import KEPT_BYTES_MAX, NEWEST_BYTES_MAX, EventReader, Reader
from proxy.rules.usage import Basis, Usage, Used, tokens_of_text
from tests.proxy.dialects.usage.transcripts import (
    CHAT,
    CHAT_STREAM,
    CHAT_STREAM_OF_TOOLS,
    CHAT_STREAM_UNTOLD,
    DOCUMENTS,
    EVENTS,
    GEMINI_STREAM,
    JSON,
    MESSAGES_STREAM,
    RESPONSES_STREAM,
    STREAMS,
    TEXTS,
    XAI_STREAM,
    Transcript,
    chat_events,
    chunk,
    data,
    named,
    spaced,
)

ASKED = Usage(40, 5000)
ALL = STREAMS | DOCUMENTS
every = pytest.mark.parametrize("transcript", [pytest.param(value, id=name) for name, value in ALL.items()])
streams = pytest.mark.parametrize("transcript", [pytest.param(value, id=name) for name, value in STREAMS.items()])
documents = pytest.mark.parametrize("transcript", [pytest.param(value, id=name) for name, value in DOCUMENTS.items()])
TEXT_TOKENS = tokens_of_text(sum(len(msgspec.json.encode(text)) - 2 for text in TEXTS))


def of(transcript: Transcript, coding: bytes = b"") -> Reader:
    fields = [(b"content-type", transcript.content_type), (b"content-encoding", coding)]
    found = reader(transcript.path, 200, fields)
    assert found is not None
    return found


def read(transcript: Transcript, pieces: Iterable[bytes], coding: bytes = b"") -> Used:
    found = of(transcript, coding)
    for piece in pieces:
        found.feed(piece)
    return found.result(ASKED)


def expected(transcript: Transcript) -> Used:
    if transcript.usage is None:
        return Used(Usage(ASKED.input, TEXT_TOKENS), Basis.ESTIMATED)
    return Used(transcript.usage, Basis.EXACT)


def in_events(body: bytes) -> list[bytes]:
    """As most upstreams send it: an event a piece."""
    return body.splitlines(keepends=True)


@every
def test_an_answer_is_read(transcript: Transcript) -> None:
    assert read(transcript, [transcript.body]) == expected(transcript)
    assert read(transcript, in_events(transcript.body)) == expected(transcript)


@every
def test_a_result_can_be_asked_for_twice(transcript: Transcript) -> None:
    found = of(transcript)
    for piece in in_events(transcript.body):
        found.feed(piece)
    assert found.result(ASKED) == found.result(ASKED) == expected(transcript)


@every
def test_an_answer_is_read_however_it_is_cut(transcript: Transcript) -> None:
    body = transcript.body
    for at in range(len(body) + 1):
        assert read(transcript, (body[:at], body[at:])) == expected(transcript), at


@every
def test_an_answer_is_read_byte_by_byte(transcript: Transcript) -> None:
    assert read(transcript, (transcript.body[at : at + 1] for at in range(len(transcript.body)))) == expected(
        transcript
    )


@given(st.sampled_from(sorted(ALL)), st.lists(st.integers(0, 5000), max_size=20))
def test_an_answer_is_read_in_any_pieces(name: str, cuts: list[int]) -> None:
    body = ALL[name].body
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    pieces = [body[one:other] for one, other in itertools.pairwise(edges)]
    assert read(ALL[name], pieces) == expected(ALL[name])


def flushed_gzip(pieces: list[bytes]) -> bytes:
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    flushed = [compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return b"".join(flushed) + compressor.flush()


def flushed_deflate(pieces: list[bytes]) -> bytes:
    return zlib.compress(b"".join(pieces))


def flushed_brotli(pieces: list[bytes]) -> bytes:
    compressor = brotli.Compressor()
    flushed = [compressor.process(piece) + compressor.flush() for piece in pieces]
    return b"".join(flushed) + bytes(compressor.finish())


def flushed_zstd(pieces: list[bytes]) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    flushed = [compressor.compress(piece) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for piece in pieces]
    return b"".join(flushed) + compressor.flush()


CODERS: dict[bytes, Callable[[list[bytes]], bytes]] = {
    b"gzip": flushed_gzip,
    b"deflate": flushed_deflate,
    b"br": flushed_brotli,
    b"zstd": flushed_zstd,
}


@every
@pytest.mark.parametrize("coding", sorted(CODERS))
def test_a_coded_answer_is_read_however_it_is_cut(transcript: Transcript, coding: bytes) -> None:
    body = CODERS[coding](in_events(transcript.body))
    for at in range(len(body) + 1):
        assert read(transcript, (body[:at], body[at:]), coding) == expected(transcript), at
    assert read(transcript, (body[at : at + 1] for at in range(len(body))), coding) == expected(transcript)


def told_at(transcript: Transcript) -> int:
    """Where the last document ends that tells usage."""
    form = form_of(transcript.path)
    assert form is not None
    return (
        transcript.body.index(b"}\r\n" if b"\r" in transcript.body else b"}\n", transcript.body.rindex(form.needle)) + 1
    )


@streams
def test_a_stream_that_was_cut_is_exact_only_if_the_last_figure_came(transcript: Transcript) -> None:
    end = len(transcript.body) + 1 if transcript.usage is None else told_at(transcript)
    for at in range(len(transcript.body) + 1):
        used = read(transcript, [transcript.body[:at]])
        assert (used.basis is Basis.EXACT) is (at >= end), at
        if used.basis is Basis.UNKNOWN:
            assert used.usage == ASKED


@documents
def test_a_document_that_was_cut_is_not_exact(transcript: Transcript) -> None:
    whole = len(transcript.body.rstrip())
    for at in range(whole):
        used = read(transcript, [transcript.body[:at]])
        assert used.basis is not Basis.EXACT, at


@pytest.mark.parametrize(
    ("transcript", "known"),
    [
        (CHAT_STREAM, Usage(ASKED.input)),
        (RESPONSES_STREAM, Usage(ASKED.input)),
        (MESSAGES_STREAM, Usage(25, 0, 1000, 150, 50)),
    ],
)
def test_a_stream_that_was_cut_is_taken_by_its_texts(transcript: Transcript, known: Usage) -> None:
    """Behind the last text and before the last figure: what was told by then, and four bytes a token."""
    cut = transcript.body.index(b"\n", transcript.body.rindex(b"done")) + 1
    if transcript is RESPONSES_STREAM:
        cut = transcript.body.index(b"event: response.output_text.done")
    usage = msgspec.structs.replace(known, output=TEXT_TOKENS)
    assert read(transcript, in_events(transcript.body[:cut])) == Used(usage, Basis.ESTIMATED)


@pytest.mark.parametrize(("transcript", "usage"), [(XAI_STREAM, Usage(8, 203, 4)), (GEMINI_STREAM, Usage(50, 60, 100))])
def test_a_stream_that_tells_as_it_goes_is_taken_by_the_newest_figure(transcript: Transcript, usage: Usage) -> None:
    cut = transcript.body.rindex(b"data: {")
    for pieces in (in_events(transcript.body[:cut]), [transcript.body[:cut]]):
        assert read(transcript, pieces) == Used(usage, Basis.ESTIMATED)


def test_more_text_than_was_told_counts() -> None:
    """A provider may tell late."""
    told = chunk([{"index": 0, "delta": {"content": "x" * 4000}}], usage={"prompt_tokens": 9, "completion_tokens": 1})
    assert read(CHAT_STREAM, [data(told)]) == Used(Usage(9, 1000), Basis.ESTIMATED)


def test_calls_of_tools_count_as_text() -> None:
    cut = CHAT_STREAM_OF_TOOLS.body.index(b'data: {"id"', CHAT_STREAM_OF_TOOLS.body.index(b"Paris"))
    used = read(CHAT_STREAM_OF_TOOLS, in_events(CHAT_STREAM_OF_TOOLS.body[:cut]))
    assert used == Used(Usage(ASKED.input, tokens_of_text(len(r"{\"city\":\"Paris\"}"))), Basis.ESTIMATED)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "four"},
        {"content": None, "reasoning_content": "four"},
        {"content": "", "reasoning": "four"},
        {"content": "", "tool_calls": [{"index": 0, "function": {"arguments": "four"}}]},
        {"refusal": "four"},
    ],
)
def test_a_text_counts_wherever_it_stands(delta: dict[str, object]) -> None:
    event = data(chunk([{"index": 0, "delta": delta, "finish_reason": None}]))
    for pieces in ([event] * 10, [event * 10], [spaced(event)] * 10):
        assert read(CHAT_STREAM, pieces) == Used(Usage(ASKED.input, 10), Basis.ESTIMATED)


@pytest.mark.parametrize("name", ["text", "thinking", "partial_json"])
def test_a_text_of_anthropics_counts_wherever_it_stands(name: str) -> None:
    event = named({"type": "content_block_delta", "index": 0, "delta": {"type": f"{name}_delta", name: "four"}})
    for pieces in ([event] * 10, [event * 10], in_events(event) * 10):
        assert read(MESSAGES_STREAM, pieces) == Used(Usage(ASKED.input, 10), Basis.ESTIMATED)


def test_several_texts_in_one_piece_count_each() -> None:
    mixed = chat_events(TEXTS[:2]) + data(*(chunk([{"delta": {"reasoning": "x" * 93}}]) for _ in range(3)))
    assert read(CHAT_STREAM, [mixed]) == Used(Usage(ASKED.input, 72), Basis.ESTIMATED)  # 6 and 3 * 93 bytes


@pytest.mark.parametrize("beginning", [b"id:  ", b":    ", b"event"])
def test_only_data_are_documents(beginning: bytes) -> None:
    assert read(CHAT_STREAM, [beginning + b'{"usage":{"prompt_tokens":1}}\n\n']) == Used(ASKED, Basis.UNKNOWN)


def test_a_part_without_figures_takes_none_back() -> None:
    bare = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"trafficType": "ON_DEMAND"}}
    told = data({"candidates": [{}], "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2}})
    assert read(GEMINI_STREAM, [told, data(bare)]) == Used(Usage(7, 2), Basis.ESTIMATED)


def test_what_tells_again_is_not_kept_if_it_is_long() -> None:
    found = EventReader(openai.FORM)
    for length in (1, 10 * NEWEST_BYTES_MAX):
        usage = {"prompt_tokens": length, "completion_tokens": 1}
        found.feed(data(chunk([{"delta": {"content": "x" * length}}], usage=usage)))
        assert len(found.newest) <= NEWEST_BYTES_MAX
    assert found.result(ASKED).usage.input == 10 * NEWEST_BYTES_MAX


WORDS = 12
COUNTED = Used(Usage(fake_answers.PROMPT_TOKENS, WORDS), Basis.EXACT)


@pytest.mark.parametrize(
    ("path", "stream", "document"),
    [
        (
            b"/v1/chat/completions",
            fake_answers.chat_completion_events("m", WORDS, fake_answers.StreamUsage.LAST_CHUNK),
            fake_answers.chat_completion("m", WORDS),
        ),
        (b"/v1/responses", fake_answers.response_events("m", WORDS), fake_answers.response("m", WORDS)),
        (b"/v1/messages", fake_answers.message_events("m", WORDS), fake_answers.message("m", WORDS)),
        (
            b"/v1beta/models/m:generateContent",
            fake_answers.generate_content_events("m", WORDS),
            fake_answers.generate_content("m", WORDS),
        ),
    ],
)
def test_the_fake_upstream_is_read_as_its_models(
    path: bytes, stream: Iterator[bytes], document: dict[str, object]
) -> None:
    assert read(Transcript(path, EVENTS, b"", None), stream) == COUNTED
    assert read(Transcript(path, JSON, b"", None), [msgspec.json.encode(document)]) == COUNTED


def test_what_a_client_has_put_into_its_request_is_no_usage() -> None:
    """A response repeats tools and metadata: figures in them must not pass for the upstream's."""
    cut = RESPONSES_STREAM.body.index(b"event: response.output_text.delta")
    assert read(RESPONSES_STREAM, [RESPONSES_STREAM.body[:cut]]) == Used(ASKED, Basis.UNKNOWN)


def test_an_error_in_a_stream_is_unknown_if_nothing_came_before() -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    assert read(MESSAGES_STREAM, [error]) == Used(ASKED, Basis.UNKNOWN)


def test_a_line_beyond_the_bound_is_skipped_and_the_next_is_read() -> None:
    piece = b"x" * 65_536
    found = of(CHAT_STREAM)
    found.feed(b'data: {"_tokens": "')
    for _ in range(3 * KEPT_BYTES_MAX // len(piece)):
        found.feed(piece)
    found.feed(b'"}\n\n')
    found.feed(CHAT_STREAM.body)
    assert found.result(ASKED) == expected(CHAT_STREAM)


def test_the_rest_of_a_line_beyond_the_bound_is_no_event() -> None:
    found = of(CHAT_STREAM)
    found.feed(b"data: ")
    found.feed(b"x" * KEPT_BYTES_MAX)
    for piece in in_events(data(chunk([], usage={"prompt_tokens": 1}))):
        found.feed(piece)
    assert found.result(ASKED) == Used(ASKED, Basis.UNKNOWN)


def test_a_document_beyond_the_bound_is_unknown() -> None:
    filled = CHAT.body.replace(b"Hello", b"x" * (KEPT_BYTES_MAX - len(CHAT.body) + 5))
    assert len(filled) == KEPT_BYTES_MAX
    assert read(CHAT, [filled]) == expected(CHAT)
    longer = filled.replace(b"xx", b"xxx", 1)
    assert read(CHAT, [longer]) == Used(ASKED, Basis.UNKNOWN)
    assert read(CHAT, [longer[:7], longer[7:], b"x"]) == Used(ASKED, Basis.UNKNOWN)


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd"])
def test_a_bomb_ends_the_reading(coding: bytes) -> None:
    bomb = CODERS[coding]([b"data: " + bytes(PLAIN_BYTES_MAX), bytes(PLAIN_BYTES_MAX)])
    assert len(bomb) < 4096
    assert read(CHAT_STREAM, [bomb, CHAT_STREAM.body], coding) == Used(ASKED, Basis.UNKNOWN)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_what_came_before_bytes_of_no_coding_counts(coding: bytes) -> None:
    good = CODERS[coding](in_events(chat_events(TEXTS)))[:-12] if coding != b"deflate" else b""
    used = read(CHAT_STREAM_UNTOLD, [good, b"\xff" * 400, b"more"], coding)
    assert used.basis is (Basis.UNKNOWN if coding == b"deflate" else Basis.ESTIMATED)


@pytest.mark.parametrize("content_type", [EVENTS, JSON])
def test_a_reader_keeps_no_more_than_its_bound(content_type: bytes) -> None:
    """An answer of 64 MB without an end of a line."""
    found = of(CHAT._replace(content_type=content_type))
    piece = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(1024):
            found.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 3 * KEPT_BYTES_MAX
    finally:
        tracemalloc.stop()
    assert found.result(ASKED) == Used(ASKED, Basis.UNKNOWN)
