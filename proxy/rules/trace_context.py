"""What a client's `traceparent` says of the span that a request belongs to (W3C Trace Context level 1). Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from proxy.rules.headers import Header

# Section 3.2.2: later versions may add fields behind these, which stay as they are.
_FIELD = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 0x01


class Parent(NamedTuple):
    """A span of the client's: what its request is a part of. Both ids are above 0."""

    trace_id: int
    span_id: int
    sampled: bool


def parent_of(headers: Iterable[Header]) -> Parent | None:
    """Returns the span that the fields name (names in lower case); None where none, several or a malformed one is."""
    values = [value for name, value in headers if name == b"traceparent"]
    found = _FIELD.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    parent = Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parent if parent.trace_id and parent.span_id else None
