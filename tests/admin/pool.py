"""The key pool's services on a database, as tests use them."""

from collections.abc import Sequence

from sqlalchemy import select

from admin.database import Database
from admin.rules.key_records import LineOutcome
from admin.services.credential_bans import BanName
from admin.services.credential_statistics import CredentialStatistics
from admin.services.credentials import Credentials
from admin.services.edits import Editor
from admin.services.key_pool import KeyPoolSettings
from admin.services.pool_groups import PoolGroups
from admin.services.routes import Routes
from admin.services.versions import Versions
from admin.tables import credentials, credentials_gone, credentials_version
from proxy.config import PoolGroup
from proxy.rules.credentials import Ban
from proxy.secrets import Secrets, new_key

NOW_MS = 1_763_700_000_000
SECRET = "sk-ant-0123456789-0123456789-canary"


class Bans:
    """Remembers what was done to bans; all begin, unless `refused`."""

    def __init__(self) -> None:
        self.begun: dict[str, Ban] = {}
        self.ended: list[BanName] = []
        self.refused = False

    async def begin(self, credential: str, ban: Ban) -> bool:
        self.begun[credential] = ban
        return not self.refused

    async def end(self, bans: Sequence[BanName]) -> None:
        self.ended += bans


class Pool:
    """Services, whose clock stands until it is moved, and what they told."""

    def __init__(self, database: Database, secrets: Secrets | None = None) -> None:
        self.database = database
        self.now_ms = NOW_MS
        self.told = 0
        self.bans = Bans()
        editor = Editor(database, lambda _: None, lambda: self.now_ms)
        self.secrets = secrets or Secrets([new_key()], "test")
        self.credentials = Credentials(database, self.secrets, lambda: self.now_ms, self.bans)
        self.key_pool = KeyPoolSettings(editor)
        self.groups = PoolGroups(editor, lambda: self.now_ms)
        self.statistics = CredentialStatistics(database, lambda: self.now_ms)
        self.versions = Versions(editor)
        self.routes = Routes(editor)
        self.credentials.notify = self.groups.notify = self.tell

    def tell(self) -> None:
        self.told += 1

    async def added(self, *secrets: str, group: str = "default") -> list[str]:
        """The ids of credentials that were not there."""
        results = await self.credentials.import_text(text="\n".join(secrets), group=group)
        assert {one.outcome for one in results} == {LineOutcome.ADDED}
        return [one.id or "" for one in results]

    async def group(self, *names: str) -> None:
        for name in names:
            await self.groups.create(id=name, group=PoolGroup(), actor="test")

    async def secret_of(self, credential_id: str) -> str:
        """As it lies in the table."""
        async with self.database.read() as connection:
            query = select(credentials.c.secret).where(credentials.c.id == credential_id)
            return str((await connection.execute(query)).scalar_one())

    async def gone(self) -> dict[str, int]:
        """Tombstones: ids and versions."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(credentials_gone.c.id, credentials_gone.c.version))
            return {row.id: row.version for row in rows}

    async def version(self) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(select(credentials_version.c.number))).scalar_one())
