"""The OAuth credential's state in SQL: one row, its tokens encrypted."""

import logging
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules.oauth import State
from admin.tables import credentials, locks, oauth_tokens
from proxy.rules.credentials import OAUTH_ID
from proxy.secrets import SecretError, Secrets

log = logging.getLogger("relaygate")

ROW = 1
REFRESH = "oauth:refresh"
ACCESS = "oauth:access"


class OAuthTokens:
    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets
        self._told = ""

    async def load(self) -> State | None:
        """The state that was saved last; None where none was. Raises DatabaseDown.

        Tokens that cannot be decrypted are None in it. That is told once: whoever has another refresh token can still
        begin a new chain with it.
        """
        async with self._database.read() as connection:
            row = (await connection.execute(select(oauth_tokens).where(oauth_tokens.c.id == ROW))).one_or_none()
        if row is None:
            return None
        try:
            tokens = self._decrypted(row.refresh_token, REFRESH), self._decrypted(row.access_token, ACCESS)
        except SecretError as error:
            self._tell(str(error))
            tokens = None, None
        else:
            self._told = ""
        return State(*tokens, row.expires_at, row.refreshed_at, row.chain, tuple(row.spent.split()))

    async def save(self, state: State) -> None:
        """Raises DatabaseDown, ConfigError."""

        async def work(connection: AsyncConnection) -> None:
            # The key that encrypts must not be rotated away before the row is there (`rotation.py`).
            await connection.execute(select(locks.c.name).where(locks.c.name == "config").with_for_update())
            await _write(connection, self._row(state))

        await self._database.transact(work)

    async def refusals(self) -> int:
        """How often upstreams have refused an access token (`CredentialIntake`). Raises DatabaseDown."""
        async with self._database.read() as connection:
            return await connection.scalar(select(credentials.c.errors).where(credentials.c.id == OAUTH_ID)) or 0

    def _row(self, state: State) -> dict[str, Any]:
        return {
            "refresh_token": self._encrypted(state.refresh_token, REFRESH),
            "access_token": self._encrypted(state.access_token, ACCESS),
            "expires_at": state.expires_at_ms,
            "refreshed_at": state.refreshed_at_ms,
            "chain": state.chain,
            "spent": " ".join(state.spent),
        }

    def _encrypted(self, token: str | None, purpose: str) -> str | None:
        return None if token is None else self._secrets.encrypt(token, purpose)

    def _decrypted(self, text: str | None, purpose: str) -> str | None:
        return None if text is None else self._secrets.decrypt(text, purpose)

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            log.error("oauth: %s", problem)
        self._told = problem


async def _write(connection: AsyncConnection, row: dict[str, Any]) -> None:
    """Sets the row, whether it is there or not. The caller holds the lock of the configuration."""
    changed = await connection.execute(update(oauth_tokens).where(oauth_tokens.c.id == ROW).values(row))
    if changed.rowcount == 0:
        await connection.execute(insert(oauth_tokens).values(id=ROW, **row))
