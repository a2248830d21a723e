"""When an access token is replaced before its time: upstreams refuse it."""

from admin.rules import oauth
from admin.rules.oauth import State

FIRST_PAUSE_MS = 60_000
PAUSE_MS_MAX = 3_600_000


class Refusals:
    """Which access token is refused. A new one is given a minute, and twice as long after each that was refused too.

    An upstream may say 401 of a request that no token helps, and a client may make as many of these as it likes.
    """

    def __init__(self) -> None:
        self._state: State | None = None
        self._pause_ms = FIRST_PAUSE_MS
        self._known = 0
        self._is_refused = False

    def note(self, state: State, refusals: int, now_ms: int) -> None:
        """Takes where the chain stands, and how many refusals workers have told of so far, of whichever token."""
        before = self._state
        if before is None or before.access_token != state.access_token:
            if before is not None:
                is_early = state.refreshed_at_ms < oauth.due_at_ms(before)
                self._pause_ms = min(2 * self._pause_ms, PAUSE_MS_MAX) if is_early else FIRST_PAUSE_MS
            self._known, self._is_refused = refusals, False
        self._state = state
        if now_ms < state.refreshed_at_ms + self._pause_ms:
            self._known = refusals  # of requests that began with the last one, too
        self._is_refused = self._is_refused or refusals > self._known

    def hold_of(self, state: State) -> bool:
        """Whether it is the access token of this state that is refused."""
        return self._is_refused and self._state is not None and state.access_token == self._state.access_token
