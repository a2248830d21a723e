"""Whether a path stays below its route's target (CHECKLIST C1-C4).

Paths are bytes as they came; nothing here rewrites one.
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
