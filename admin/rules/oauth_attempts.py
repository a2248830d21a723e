"""How soon the provider is asked again after it was asked in vain."""

from admin.rules.oauth import Refusal

FIRST_PAUSE_S = 5.0
PAUSE_S_MAX = 300.0
FINAL_PAUSE_S = 3600.0
"""After a refusal that sending the same again will not change."""

Tokens = tuple[str | None, ...]


class Attempts:
    """What came of asking in vain. It holds of the tokens that were tried; with others it begins anew."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.next_ms = 0
        self._tokens: Tokens = ()
        self._pause_ms = 0.0

    def may(self, tokens: Tokens, now_ms: int) -> bool:
        """Whether the provider may be asked. A clock that was set back does not make the pause longer."""
        if self.refusal is None or tokens != self._tokens:
            return True
        return not self.next_ms - self._pause_ms <= now_ms < self.next_ms

    def failed(self, tokens: Tokens, refusal: Refusal, now_ms: int) -> None:
        """Notes a refusal. The pause doubles with each in a row, from 5 s to 5 minutes; after a final one it is 1 h."""
        if refusal.is_final:
            pause_s = FINAL_PAUSE_S
        elif tokens != self._tokens or self.refusal is None or self.refusal.is_final:
            pause_s = FIRST_PAUSE_S
        else:
            pause_s = min(PAUSE_S_MAX, 2 * self._pause_ms / 1000)
        self.refusal, self._tokens, self._pause_ms = refusal, tokens, pause_s * 1000
        self.next_ms = now_ms + int(pause_s * 1000)
