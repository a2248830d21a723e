"""Which `X-Request-Id` of a client is believed (CHECKLIST C82)."""

import re

SANE = re.compile(rb"[A-Za-z0-9._~!#$%&'*+^`|-]{1,128}")


def sane(value: bytes | None) -> bytes | None:
    """Returns a client's own id if it is 1 to 128 token characters, else None."""
    return value if value is not None and SANE.fullmatch(value) else None
