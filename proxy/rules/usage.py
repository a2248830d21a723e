"""How many tokens of a language model one request took, and what that rests on. Plain values, whatever the provider.

Providers count differently: OpenAI's and Gemini's input includes what came from a cache, Anthropic's does not. Here the
figures are apart and add up.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from proxy.rules.access_tokens import AMOUNT_MAX

BYTES_PER_TOKEN = 4
"""Of text, as the providers' own rule of thumb has it; for estimates only."""


class Basis(StrEnum):
    """What a usage rests on.

    EXACT: the provider's final figure. ESTIMATED: what was seen of an answer that was cut or does not tell. UNKNOWN:
    nothing of use was seen.
    """

    EXACT = "exact"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens, each counted once: `input` is what neither came from a cache nor was written to one.

    `cache_write_1h` were written to one that keeps them for an hour, which Anthropic sells beside the usual one.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write + self.cache_write_1h


class Used(NamedTuple):
    """What one request took."""

    usage: Usage
    basis: Basis


def tokens_of_text(length_bytes: int) -> int:
    """Returns how many tokens a text is taken for, rounded up."""
    return -(-length_bytes // BYTES_PER_TOKEN)


def count(value: object) -> int:
    """Returns a number of tokens as it stands in a document; 0 where it is none, such as a text, -1 or NaN.

    Protocol buffers write numbers as texts, too (Gemini). Nothing is above AMOUNT_MAX.
    """
    if isinstance(value, str):
        value = int(value) if len(value) <= 16 and value.isascii() and value.isdigit() else 0
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else 0
    if type(value) is not int or value <= 0:
        return 0
    return min(value, AMOUNT_MAX)
