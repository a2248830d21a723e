"""Find the documents that tell usage in the pieces of an answer, as they pass and however they are cut. Never raise.

A reader keeps no more than KEPT_BYTES_MAX: of a stream of events the line that is not whole yet, of another answer all
of it. A line beyond that is skipped, and what it told is not read; a document beyond it is unknown altogether.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from proxy.dialects.codings import UndecodableError
from proxy.dialects.usage.forms import Form, Told, read
from proxy.rules.usage import Basis, Usage, Used, tokens_of_text

KEPT_BYTES_MAX = 1024 * 1024
NEWEST_BYTES_MAX = 8 * 1024
PARTS = msgspec.json.Decoder(list[msgspec.Raw])
# Begins a comment in a stream of events (WHATWG HTML, section 9.2.6).
COMMENT = b":"
NEWLINE = b"\n"[0]


class Reader(Protocol):
    """What reads one answer's usage."""

    def feed(self, piece: bytes) -> None:
        """Takes the next piece, as the client gets it."""

    def result(self, asked: Usage) -> Used:
        """Returns what the request took, by what has been fed. `asked` is what it was expected to take.

        Estimated: what the provider has told by then, the input else as expected, and output by the length of the texts
        where that is more. Unknown: as expected.
        """


class EventReader:
    """Reads a stream of server-sent events.

    Each `data:` line is a document, as all providers send them. Most pieces are whole lines that tell nothing: they
    cost one search for the form's needle and one for texts. What tells again what has been told is only decoded where
    nothing newer comes, since some tell it with each event; all figures are cumulative.
    """

    __slots__ = ("finds", "form", "needle", "newest", "rest", "said", "text_bytes")

    def __init__(self, form: Form) -> None:
        self.form = form
        self.needle = form.needle
        self.finds = form.texts
        self.rest = bytearray()
        self.said = Told()
        self.newest = b""
        self.text_bytes = 0

    def feed(self, piece: bytes) -> None:
        if not piece:
            return
        if self.rest or piece[-1] != NEWLINE:
            piece = self.lines(piece)
        if self.needle in piece:
            self.newest = piece
            if self.said.usage is None or len(piece) > NEWEST_BYTES_MAX:
                self.read_newest()
        for text in self.finds(piece):
            self.text_bytes += len(text)

    def lines(self, piece: bytes) -> bytes:
        """Returns the lines that are whole with this piece, and keeps what is behind them."""
        rest = self.rest
        end = piece.rfind(b"\n") + 1
        if end:
            whole = bytes(rest) + piece[:end]
            rest[:] = piece[end:]
            return whole
        if len(rest) + len(piece) > KEPT_BYTES_MAX:
            rest[:] = COMMENT
        else:
            rest += piece
        return b""

    def read_newest(self) -> None:
        self.said = self.read(self.newest)
        self.newest = b""

    def read(self, lines: bytes) -> Told:
        """Returns what has been told with some more lines."""
        said = self.said
        for line in lines.split(b"\n"):
            if self.needle in line and line.startswith(b"data:"):
                said = self.form.told(line[5:], said)
        return said

    def result(self, asked: Usage) -> Used:
        self.read_newest()
        # A stream may end without the end of its last line.
        return used(self.read(bytes(self.rest)), self.text_bytes, asked)


class DocumentReader:
    """Reads an answer that is one JSON document, or a list of what would be events."""

    __slots__ = ("body", "form", "too_long")

    def __init__(self, form: Form) -> None:
        self.form = form
        self.body = bytearray()
        self.too_long = False

    def feed(self, piece: bytes) -> None:
        if self.too_long or len(self.body) + len(piece) > KEPT_BYTES_MAX:
            self.too_long = True
            self.body.clear()
        else:
            self.body += piece

    def result(self, asked: Usage) -> Used:
        body = bytes(self.body)
        said = Told()
        for document in read(PARTS, body) or (body,):
            said = self.form.told(bytes(document), said)
        if said.usage is not None:
            return Used(said.usage, Basis.EXACT)
        return used(said, sum(map(len, self.form.texts(body))), asked)


class CodedReader:
    """Takes the coding off an answer before another reader. What cannot be decoded ends the reading."""

    __slots__ = ("decode", "plain", "undecodable")

    def __init__(self, decode: Callable[[bytes], bytes], plain: Reader) -> None:
        self.decode = decode
        self.plain = plain
        self.undecodable = False

    def feed(self, piece: bytes) -> None:
        if self.undecodable:
            return
        try:
            plain = self.decode(piece)
        except UndecodableError:
            self.undecodable = True
            return
        self.plain.feed(plain)

    def result(self, asked: Usage) -> Used:
        return self.plain.result(asked)


def used(said: Told, text_bytes: int, asked: Usage) -> Used:
    """Returns what a request took whose answer has told so much, and has had texts of so many bytes."""
    if said.usage is None and not text_bytes:
        return Used(asked, Basis.UNKNOWN)
    if said.usage is None:
        return Used(Usage(asked.input, tokens_of_text(text_bytes)), Basis.ESTIMATED)
    if said.final:
        return Used(said.usage, Basis.EXACT)
    output = max(said.usage.output, tokens_of_text(text_bytes))
    return Used(msgspec.structs.replace(said.usage, output=output), Basis.ESTIMATED)
