"""Takes the coding off a body as far as it has come: BODY_BYTES_MAX in, as much out, whatever it would grow to.

`streaming` does so piece by piece, for bodies of any length: PLAIN_BYTES_MAX out for a piece.

A window, which a few bytes can ask for, has a bound too: brotli's own are 16 MB at most (RFC 7932 section 9.1), of zstd
no wider ones are read than may be sent (RFC 9659). Sources: RFC 9110 section 8.4.1; RFC 1950, 1952, 7932, 8878.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import BinaryIO, cast

import brotli
from zstandard import ZstdDecompressor, ZstdError

BODY_BYTES_MAX = 64 * 1024
"""How much of a body is worth reading, coded and decoded alike."""
PLAIN_BYTES_MAX = 1024 * 1024
"""How much one piece may grow to: 32 times the most that is read at once."""

# Automatic detection of zlib's and gzip's own headers.
WINDOW_BITS = zlib.MAX_WBITS + 32
ZSTD_WINDOW_BYTES_MAX = 8 * 1024 * 1024


def decoded(coding: bytes, body: bytes) -> bytes:
    """Returns the beginning of a body without its coding, in any case; nothing where that cannot be read."""
    decode = DECODERS.get(coding.strip().lower())
    if decode is None:
        return b""
    try:
        return decode(body[:BODY_BYTES_MAX])[:BODY_BYTES_MAX]
    except (zlib.error, brotli.error, ZstdError):
        return b""


def inflated(body: bytes) -> bytes:
    return zlib.decompressobj(WINDOW_BITS).decompress(body, BODY_BYTES_MAX)


def from_brotli(body: bytes) -> bytes:
    found: bytes = brotli.Decompressor().process(body, output_buffer_limit=BODY_BYTES_MAX)
    return found


def from_zstd(body: bytes) -> bytes:
    decompressor = ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    return decompressor.stream_reader(body, read_across_frames=True).read(BODY_BYTES_MAX)


DECODERS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"": bytes,
    b"identity": bytes,
    b"gzip": inflated,
    b"x-gzip": inflated,
    b"deflate": inflated,
    b"br": from_brotli,
    b"zstd": from_zstd,
}


class UndecodableError(Exception):
    """A piece that is not of its coding, or grows beyond PLAIN_BYTES_MAX."""


def streaming(coding: bytes) -> Callable[[bytes], bytes] | None:
    """Returns what takes a coding off the pieces of a body as they come; None where the coding is not known here.

    It gives back what is plain by then, and raises UndecodableError; after that it is of no use.
    """
    make = STREAMING.get(coding.strip().lower())
    return None if make is None else make()


def inflating() -> Callable[[bytes], bytes]:
    inflater = zlib.decompressobj(WINDOW_BITS)

    def decode(piece: bytes) -> bytes:
        try:
            return bounded(inflater.decompress(piece, PLAIN_BYTES_MAX + 1))
        except zlib.error:
            raise UndecodableError from None

    return decode


def streaming_brotli() -> Callable[[bytes], bytes]:
    decompressor = brotli.Decompressor()

    def decode(piece: bytes) -> bytes:
        try:
            plain: bytes = decompressor.process(piece, output_buffer_limit=PLAIN_BYTES_MAX + 1)
        except brotli.error:
            raise UndecodableError from None
        if not decompressor.can_accept_more_data():
            raise UndecodableError
        return bounded(plain)

    return decode


def streaming_zstd() -> Callable[[bytes], bytes]:
    sink = Sink()
    writer = ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).stream_writer(cast("BinaryIO", sink))

    def decode(piece: bytes) -> bytes:
        try:
            writer.write(piece)
        except ZstdError:
            raise UndecodableError from None
        return sink.take()

    return decode


class Sink:
    """Takes what zstd makes of a piece, a block at a time: its decompressor has no bound of its own."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.length = 0

    def write(self, block: bytes) -> int:
        self.length += len(block)
        if self.length > PLAIN_BYTES_MAX:
            raise UndecodableError
        self.blocks.append(bytes(block))
        return len(block)

    def take(self) -> bytes:
        plain = b"".join(self.blocks)
        self.blocks.clear()
        self.length = 0
        return plain


def bounded(plain: bytes) -> bytes:
    if len(plain) > PLAIN_BYTES_MAX:
        raise UndecodableError
    return plain


STREAMING: Mapping[bytes, Callable[[], Callable[[bytes], bytes]]] = {
    b"": lambda: bytes,
    b"identity": lambda: bytes,
    b"gzip": inflating,
    b"x-gzip": inflating,
    b"deflate": inflating,
    b"br": streaming_brotli,
    b"zstd": streaming_zstd,
}
