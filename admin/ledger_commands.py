"""What `relaygate ledger verify` and `export` do: read the database, and Redis where it answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from admin.commands import there
from admin.control_plane import looked_at
from admin.counter_proof import CounterProof
from admin.data_directory import data_directory
from admin.database import Database
from admin.rules.token_records import Span
from admin.services.ledger_export import LedgerExport
from admin.services.ledger_proof import LedgerProof
from proxy.config import Config, ConfigError
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.embedded import EmbeddedRedis

DEADLINE_S = 5.0
"""For a call to Redis: nobody waits for an answer meanwhile."""


async def verify(config: Config, write: Callable[[str], object]) -> int:
    """Writes one line: that all adds up, or which token does not, and how; returns the exit status: 1 then.

    Raises ConfigError, DatabaseDown.
    """
    async with ledger_of(config) as database:
        proof = LedgerProof(database)
        proved = await proof.prove()
        if proved.problem:
            write(f"{proved.token}: {proved.problem}\n")
            return 1
        compared = await _compared(config, proof)
    if isinstance(compared, tuple):
        token, problem = compared
        write(f"{token}: {problem}\n")
        return 1
    write(f"{proved.rows} rows of {proved.tokens} tokens add up; {compared}\n")
    return 0


async def export(config: Config, token: str | None, write: Callable[[str], object]) -> None:
    """Writes the ledger as CSV, of a token (its id) or of all. Raises ConfigError, DatabaseDown."""
    async with ledger_of(config) as database:
        async for lines in LedgerExport(database).csv(token=token, span=Span()):
            write(lines)


@asynccontextmanager
async def ledger_of(config: Config) -> AsyncIterator[Database]:
    """The database of the settings, as it is. Raises ConfigError where there is none, DatabaseDown."""
    async with looked_at(config) as database:
        if not await there(database):
            raise ConfigError("database", database.place, "there is none yet, so there is no ledger")
        yield database


async def _compared(config: Config, proof: LedgerProof) -> tuple[str, str] | str:
    """A token that differs in Redis and how; or what to say where none does, or nobody can tell."""
    url = config.redis.url or EmbeddedRedis(data_directory(config) / "redis").url
    client = connect(url, deadline_s=DEADLINE_S)
    counters = CounterProof(client, Guard(client, Breaker(), DEADLINE_S), proof)
    try:
        if not await counters.is_ready():
            return "Redis is not compared, since it is not filled"
        return await counters.differing() or "Redis agrees"
    except (StoreUnavailable, RedisError):
        return "Redis is not compared, since it does not answer"
    finally:
        await client.aclose()
