"""What an answer says by its status alone, and the table of words that knows better.

The client's own faults (400, 404, 413, 422 and every other 4xx that is not listed) say nothing. A 403 alone may be one:
a path that no key may ask for, somebody else's file, a text that a provider does not take.
"""

import re
from collections.abc import Iterable, Mapping

from proxy.dialects.error_bodies import Told
from proxy.rules.credentials import Says, Verdict
from proxy.rules.headers import Header
from proxy.rules.waits import wait_s

STATUSES: Mapping[int, Says] = {
    401: Says.UNAUTHORIZED,
    402: Says.OUT_OF_QUOTA,
    403: Says.FORBIDDEN,
    429: Says.RATE_LIMITED,
    # Not implemented, a version not supported: the request's doing.
    501: Says.NOTHING,
    505: Says.NOTHING,
    503: Says.OVERLOADED,
    529: Says.OVERLOADED,
}
# A validator (pydantic) begins with the name of the field that it does not know, and that is whatever the client likes.
UNKNOWN_FIELD = re.compile(r": (?:extra inputs are not permitted|additional input is not allowed)")
WAITED_FOR = frozenset((Says.RATE_LIMITED, Says.OUT_OF_QUOTA, Says.OVERLOADED, Says.FAILED))


def says(status: int) -> Says:
    """Returns what a status says where nothing else does."""
    if status < 400:
        return Says.SUCCESS
    return STATUSES.get(status, Says.NOTHING if status < 500 else Says.FAILED)


def from_words(error: Told, beginnings: Iterable[tuple[str, Says]], words: Mapping[str, Says]) -> Says | None:
    """Returns what an error says: by how its message begins, else by the first word that the table knows.

    Only beginnings, since further on a message may repeat what the client sent, and not those of `UNKNOWN_FIELD`.
    """
    message = error.message.lower()
    if UNKNOWN_FIELD.search(message) is None:
        for beginning, meaning in beginnings:
            if message.startswith(beginning):
                return meaning
    return next((words[word] for word in error.words if word in words), None)


def verdict(
    meaning: Says,
    fields: Iterable[Header],
    now_s: float,
    body_s: float | None = None,
    models: frozenset[Says] = frozenset(),
) -> Verdict:
    """Returns the verdict, with the wait that the answer asks for, `body_s` what its body says of that.

    What it says is of the request's model only, if it is one of `models`.
    """
    wait = wait_s(fields, now_s, body_s) if meaning in WAITED_FOR else None
    return Verdict(meaning, wait, meaning in models)
