"""Whether a path stays below its route's target (CHECKLIST C1-C4), and what servers may take it for.

Paths are bytes as they came; what goes to an upstream is never rewritten.
"""

import re
from urllib.parse import unquote_to_bytes

# As numbers: looking for one costs a tenth of looking for a string of one byte.
DOT, PERCENT = b".%"
SEPARATORS = re.compile(rb"[/\\]")


def climbs(rest: bytes) -> bool:
    """Tells whether `rest`, decoded once as a server would, ever climbs above where it starts.

    An empty segment counts for nothing (some servers merge slashes), a backslash separates, and `..;x` is `..`
    (some servers think so).
    """
    if DOT not in rest and PERCENT not in rest:
        return False
    depth = 0
    for segment in SEPARATORS.split(unquote_to_bytes(rest)):
        name = segment.partition(b";")[0]
        if name == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif name not in (b"", b"."):
            depth += 1
    return False


def as_one(path: bytes) -> bytes | None:
    """Returns the one path that servers may take this for, decoded once.

    None where it has `..` in it, which only some of them resolve.
    """
    names = [segment.partition(b";")[0] for segment in SEPARATORS.split(unquote_to_bytes(path))]
    return None if b".." in names else b"/".join((b"", *(name for name in names if name not in (b"", b"."))))


def as_served(path: bytes) -> bytes:
    """Returns what a path may mean to a server: read as `climbs` does, in lower case, with a slash at both ends."""
    found: list[bytes] = []
    for segment in SEPARATORS.split(unquote_to_bytes(path)):
        name = segment.partition(b";")[0].lower()
        if name == b"..":
            del found[-1:]
        elif name not in (b"", b"."):
            found.append(name)
    return b"/".join((b"", *found, b""))
