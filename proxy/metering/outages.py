"""What a worker admits by itself while Redis cannot be asked: of tokens that allow it, so many requests, by what Redis
said last. They are counted once it is back (`Meter.replay`).
"""

from collections import OrderedDict
from typing import NamedTuple

from proxy.rules.access_tokens import AccessToken, OnStoreOutage
from proxy.rules.batches import Admission, Verdict

REMEMBERED_MAX = 10_000
ALLOW = OnStoreOutage.ALLOW
CLOSED = frozenset((Verdict.DISABLED, Verdict.DELETED, Verdict.EXPIRED))


class Left(NamedTuple):
    """How many requests a token has without Redis, and how much of its quota; None where nothing is counted."""

    requests: int
    quota: int | None


NOTHING = Left(0, 0)


class Outages:
    """One worker's allowance. It is as large again for each token when Redis has answered for that."""

    def __init__(self) -> None:
        self.requests_max = 0
        """Of one token, during one outage."""
        self._left: OrderedDict[str, Left] = OrderedDict()

    def note(self, digest: str, token: AccessToken, admission: Admission) -> None:
        """Remembers what is left of a token that may be used without Redis: nothing, where Redis says it is over."""
        if token.on_store_outage is ALLOW:
            is_over = admission.verdict in CLOSED
            self._left[digest] = NOTHING if is_over else Left(self.requests_max, admission.remaining)
            self._left.move_to_end(digest)
            if len(self._left) > REMEMBERED_MAX:
                self._left.popitem(last=False)

    def admits(self, digest: str, token: AccessToken, now_ms: int, cost: int) -> bool:
        """Takes a request and its cost from what is left, if that lasts and the token does.

        What it uses less than its cost does not come back to this allowance, but to the counter.
        """
        left = self._left.get(digest, NOTHING)
        if token.on_store_outage is not ALLOW or not left.requests or (token.expires_ms and now_ms >= token.expires_ms):
            return False
        if left.quota is None:
            self._left[digest] = Left(left.requests - 1, None)
            return True
        if left.quota <= 0 or left.quota < cost:
            return False
        self._left[digest] = Left(left.requests - 1, left.quota - cost)
        return True
