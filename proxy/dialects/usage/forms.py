"""What each of the forms consists of."""

import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from proxy.rules.usage import Usage

Document = TypeVar("Document")
EVENT_BYTES = 600
"""What is longer may be several events."""
STRING = rb'([^"\\]*+(?:\\.[^"\\]*+)*+)"'
"""What stands behind the opening quote of a text in JSON. Possessive: nothing is tried twice."""


class Told(NamedTuple):
    """What an answer has told so far. `final`: it is the figure that the provider counts by."""

    usage: Usage | None = None
    final: bool = False


class Form(NamedTuple):
    """How an API tells usage.

    `needle` stands in each document that does, and hardly in others; in texts it cannot, for their quotes are escaped.
    `told` returns what is told once a document has come. `texts` finds what the model has written in lines or a
    document, escaped as it is there. `output_max` returns how many tokens of output a request's body allows in all; it
    is given the number for a body that says nothing or cannot be read.
    """

    needle: bytes
    told: Callable[[bytes, Told], Told]
    texts: Callable[[bytes], list[bytes]]
    output_max: Callable[[bytes, int], int]


def texts_behind(*names: bytes) -> Callable[[bytes], list[bytes]]:
    """Returns what finds the texts behind names, each given by what it ends with, the usual one first.

    An event has a text behind one of them, so they are tried one after the other, which takes a third of the time of
    an expression for all. Several events may have different ones.
    """
    finders = [re.compile(rb'%b": ?"%b' % (name, STRING)).findall for name in names]
    find_all = re.compile(rb'(?:%b)": ?"%b' % (b"|".join(names), STRING)).findall

    def texts(piece: bytes) -> list[bytes]:
        if len(piece) > EVENT_BYTES:
            return find_all(piece)
        for find in finders:
            found = find(piece)
            if any(found):
                return found
        return []

    return find_all if len(names) == 1 else texts


def read(decoder: msgspec.json.Decoder[Document], document: bytes) -> Document | None:
    """Returns what is looked for in a document; None where it is cut, or of another shape."""
    try:
        return decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
