"""Bodies of errors, in every shape and state."""

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.codings import BODY_BYTES_MAX
from proxy.dialects.error_bodies import Told, is_page, told
from tests.proxy.dialects.bodies import anthropic, google, openai, reason

GZIP = [(b"content-encoding", b"gzip")]


@pytest.mark.parametrize(
    ("body", "words", "message"),
    [
        (openai("m", "Kind", "Code"), ("code", "kind"), "m"),
        (anthropic("rate_limit_error", "m"), ("rate_limit_error",), "m"),
        (google(403, "PERMISSION_DENIED", "m"), ("permission_denied",), "m"),
        (b'{"error":"m","code":"c"}', ("c",), "m"),
        (b'{"message":"m","type":"t","code":1300}', ("t",), "m"),
        (b'{"error":{"message":7,"code":{}}}', (), ""),
        (b'{"detail":"m"}', (), ""),
    ],
)
def test_an_error_is_found_where_each_api_has_it(body: bytes, words: tuple[str, ...], message: str) -> None:
    error = told([], body)
    assert (error.words, error.message) == (words, message)
    assert told([], b"[" + body + b"]") == error


def test_googles_details_are_told() -> None:
    assert told([], google(400, "INVALID_ARGUMENT", "m", reason("API_KEY_INVALID"))).details == (
        reason("API_KEY_INVALID"),
    )


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        (b"gzip", gzip.compress),
        (b"GZIP", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"br", brotli.compress),
        (b"zstd", zstandard.compress),
    ],
)
def test_a_coded_body_is_decoded(coding: bytes, coded: object) -> None:
    assert callable(coded)
    assert told([(b"content-encoding", coding)], coded(openai("m", None, "c"))).words == ("c",)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([], b""),
        ([], b"null"),
        ([], b"[]"),
        ([], b"<html>"),
        ([], b"[" * 100_000),
        ([], b'{"error":' * 1_000),
        ([], b'{"error":{"code":"\xff"}}'),
        ([], openai("m", None, "c")[:-1]),
        (GZIP, b"no gzip"),
        (GZIP, gzip.compress(openai("m", None, "c"), mtime=0)[:30]),
        (GZIP, gzip.compress(b" " * 10_000_000 + openai("m", None, "c"), mtime=0)),
        ([(b"content-encoding", b"br")], openai("m", None, "c")),
        ([(b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")], gzip.compress(b"{}", mtime=0)),
        ([], b" " * BODY_BYTES_MAX + openai("m", None, "c")),
    ],
)
def test_what_cannot_be_read_tells_nothing(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    assert told(fields, body) == Told()


def test_a_page_is_told_by_its_type() -> None:
    assert is_page([(b"content-type", b"Text/HTML; charset=utf-8")])
    assert not is_page([(b"content-type", b"application/json")])
    assert not is_page([])


@given(st.binary(max_size=200), st.sampled_from([b"", b"gzip", b"deflate", b"br", b"zstd", b"identity"]))
def test_no_bytes_raise(body: bytes, coding: bytes) -> None:
    told([(b"content-encoding", coding)], body)
