"""Lua scripts: each lies in a file beside the code that calls it, sent whole only where Redis does not have it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.direct import Direct


class Script:
    """A script, read once. All its keys must lie in one slot, which says where a cluster runs it."""

    def __init__(self, file: Path) -> None:
        self._text = file.read_text(encoding="utf-8")
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(
        self,
        client: Client,
        guard: Guard,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | int],
        direct: Direct | None = None,
    ) -> Any:
        """Returns what the script does. Raises StoreUnavailable, and redis-py's errors where the script fails.

        Redis forgets scripts: when it restarts, when another node takes over, and at SCRIPT FLUSH. With `direct`, that
        connection is asked and not the client.
        """
        values: Any = (*keys, *arguments)
        try:
            if direct is not None:
                if not direct.is_connected:
                    await guard.call(direct.connect)
                return await guard.watched(
                    lambda: direct.ask(guard.deadline_s, "EVALSHA", self._sha, len(keys), *values)
                )
            return await guard.call(lambda: client.evalsha(self._sha, len(keys), *values))  # type: ignore[arg-type,return-value,unused-ignore]
        except NoScriptError:
            return await guard.call(lambda: client.eval(self._text, len(keys), *values))  # type: ignore[arg-type,return-value,unused-ignore]
