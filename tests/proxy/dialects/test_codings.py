"""Bodies in every coding: read as far as they have come, and never more of them than is worth it."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.codings import (
    BODY_BYTES_MAX,
    DECODERS,
    PLAIN_BYTES_MAX,
    STREAMING,
    UndecodableError,
    decoded,
    streaming,
)

Code = Callable[[bytes], bytes]


def zstd_stream(body: bytes) -> bytes:
    """As servers send it: without the size of the whole."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(body) + compressor.flush()


CODES: dict[bytes, Code] = {
    b"": bytes,
    b"identity": bytes,
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstd_stream,
}
PIECES: dict[bytes, Callable[[], Any]] = {
    b"gzip": lambda: zlib.compressobj(wbits=zlib.MAX_WBITS + 16),
    b"br": brotli.Compressor,
    b"zstd": lambda: zstandard.ZstdCompressor().compressobj(),
}
bodies = st.binary(max_size=300) | st.builds(lambda body: body * 1000, st.binary(min_size=1, max_size=150))


def flushed(coding: bytes, piece: bytes) -> bytes:
    """What has gone out once a piece has been written and flushed, and the body goes on."""
    compressor = PIECES[coding]()
    if coding == b"br":
        return bytes(compressor.process(piece) + compressor.flush())
    mode = zlib.Z_SYNC_FLUSH if coding == b"gzip" else zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return bytes(compressor.compress(piece) + compressor.flush(mode))


def stream(coding: bytes) -> Callable[[bytes], bytes]:
    decode = streaming(coding)
    assert decode is not None
    return decode


def test_each_coding_that_is_read_is_tested() -> None:
    assert CODES.keys() == DECODERS.keys() == STREAMING.keys()


@given(st.sampled_from(sorted(CODES)), bodies)
def test_a_body_is_read_up_to_the_bound(coding: bytes, body: bytes) -> None:
    assert decoded(coding, CODES[coding](body)) == body[:BODY_BYTES_MAX]


@given(st.sampled_from(sorted(CODES)), bodies, st.integers(0, 400))
def test_a_body_that_was_cut_is_read_as_far_as_it_goes(coding: bytes, body: bytes, cut: int) -> None:
    assert body.startswith(decoded(coding, CODES[coding](body)[:cut]))


@given(st.sampled_from(sorted(PIECES)), st.binary(min_size=1, max_size=300))
def test_what_was_flushed_is_read_though_the_rest_is_missing(coding: bytes, piece: bytes) -> None:
    assert decoded(coding, flushed(coding, piece)) == piece


@given(st.sampled_from(sorted(CODES)), st.binary(max_size=200))
def test_no_bytes_raise(coding: bytes, body: bytes) -> None:
    assert len(decoded(coding, body)) <= BODY_BYTES_MAX


@pytest.mark.parametrize("coding", sorted(CODES))
def test_a_coding_is_known_however_it_is_spelled(coding: bytes) -> None:
    assert decoded(b" " + coding.upper(), CODES[coding](b"body")) == b"body"


@pytest.mark.parametrize("coding", [b"compress", b"gzip,gzip", b"br, gzip", b"aes128gcm"])
def test_what_is_not_known_is_not_read(coding: bytes) -> None:
    assert decoded(coding, b"body") == b""


def test_frames_that_follow_each_other_are_one_body() -> None:
    assert decoded(b"zstd", zstd_stream(b"one, ") + zstd_stream(b"two")) == b"one, two"


def test_a_window_that_nobody_may_ask_for_is_not_made() -> None:
    terms = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=terms).compressobj()
    assert decoded(b"zstd", compressor.compress(b"body") + compressor.flush()) == b""


@given(st.sampled_from(sorted(CODES)), bodies, st.integers(1, 50))
def test_a_body_is_read_piece_by_piece(coding: bytes, body: bytes, size: int) -> None:
    coded, decode = CODES[coding](body), stream(coding)
    assert b"".join(decode(coded[at : at + size]) for at in range(0, len(coded), size)) == body


@given(st.sampled_from(sorted(PIECES)), st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_each_piece_is_plain_once_it_has_come(coding: bytes, pieces: list[bytes]) -> None:
    compressor, decode = PIECES[coding](), stream(coding)
    mode = zlib.Z_SYNC_FLUSH if coding == b"gzip" else zstandard.COMPRESSOBJ_FLUSH_BLOCK
    for piece in pieces:
        if coding == b"br":
            coded = compressor.process(piece) + compressor.flush()
        else:
            coded = compressor.compress(piece) + compressor.flush(mode)
        assert decode(coded) == piece


@pytest.mark.parametrize("coding", sorted(CODES.keys() - {b"", b"identity"}))
def test_a_piece_may_grow_to_the_bound_and_no_further(coding: bytes) -> None:
    assert stream(coding)(CODES[coding](bytes(PLAIN_BYTES_MAX))) == bytes(PLAIN_BYTES_MAX)
    for length in (PLAIN_BYTES_MAX + 1, 3 * PLAIN_BYTES_MAX):
        with pytest.raises(UndecodableError):
            stream(coding)(CODES[coding](bytes(length)))


@pytest.mark.parametrize("coding", sorted(CODES.keys() - {b"", b"identity"}))
def test_bytes_of_no_coding_are_told(coding: bytes) -> None:
    with pytest.raises(UndecodableError):
        stream(coding)(b"\xff" * 100)


@pytest.mark.parametrize("coding", [b"compress", b"gzip,gzip", b"br, gzip", b"aes128gcm"])
def test_what_is_not_known_has_no_stream(coding: bytes) -> None:
    assert streaming(coding) is None


def test_a_stream_makes_no_window_that_nobody_may_ask_for() -> None:
    terms = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=terms).compressobj()
    with pytest.raises(UndecodableError):
        stream(b"zstd")(compressor.compress(b"body") + compressor.flush())


def test_a_stream_goes_on_over_frames() -> None:
    assert stream(b"zstd")(zstd_stream(b"one, ") + zstd_stream(b"two")) == b"one, two"


GROWTH = """
import resource, sys
from proxy.dialects.codings import UndecodableError, decoded, streaming
coding, bomb = sys.argv[1].encode(), sys.stdin.buffer.read()
decoded(coding, bomb[:16])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = decoded(coding, bomb)
try:
    streaming(coding)(bomb)
except UndecodableError:
    print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("coding", sorted(PIECES))
def test_a_bomb_takes_no_more_memory_than_a_window(coding: bytes) -> None:
    """64 MB of zeros in some KB, which would all be made if nobody stopped it."""
    compressor = PIECES[coding]()
    add = compressor.process if coding == b"br" else compressor.compress
    end = compressor.finish if coding == b"br" else compressor.flush
    bomb = b"".join(add(bytes(1 << 20)) for _ in range(64)) + end()
    assert len(bomb) < 2 * BODY_BYTES_MAX
    told = subprocess.run([sys.executable, "-c", GROWTH, coding.decode()], input=bomb, capture_output=True, check=True)
    length, grown_kb = map(int, told.stdout.split())
    assert length == BODY_BYTES_MAX
    assert grown_kb < 24 * 1024
