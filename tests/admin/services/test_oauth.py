"""The OAuth credential's state in a real SQL: it comes back, and no token lies readable there."""

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select, text

from admin.database import Database
from admin.rotation import rotate
from admin.rules.oauth import State, digest
from admin.services.credential_intake import CredentialIntake
from admin.services.credentials import Credentials
from admin.services.events import Entry
from admin.services.oauth import OAuthTokens
from admin.tables import oauth_tokens
from proxy.rules.credentials import OAUTH_ID, Kind
from proxy.secrets import Secrets, load_secrets, new_key
from proxy.shared_state.credential_events import CredentialCounts, CredentialsDelta
from tests.sql_servers import with_database

KEY = new_key()
NOW_MS = 1_763_700_000_000
STATE = State("canary-rt", "canary-at" * 5000, 1_763_700_000_000, 1_763_600_000_000, digest("rt-0"), (digest("rt-0"),))


def test_what_is_saved_is_loaded_and_the_last_one_counts(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = OAuthTokens(database, Secrets([KEY], "test"))
        assert await tokens.load() is None
        for state in (STATE, STATE, State(None, None, 0, 0, digest("rt-1")), STATE):
            await tokens.save(state)
            assert await OAuthTokens(database, Secrets([KEY], "test")).load() == state
        async with database.read() as connection:
            (row,) = (await connection.execute(text("SELECT * FROM oauth_tokens"))).all()
        assert "canary" not in str(row)

    with_database(database_url, story)


def test_refusals_are_what_workers_have_told_of_the_credential(database_url: str) -> None:
    async def story(database: Database) -> None:
        secrets = Secrets([KEY], "test")
        tokens = OAuthTokens(database, secrets)
        assert await tokens.refusals() == 0
        credentials = Credentials(database, secrets, lambda: NOW_MS)
        for token in ("at-1", "at-2"):
            await credentials.put(id=OAUTH_ID, secret=token, kind=Kind.OAUTH)
            counts = [CredentialCounts(OAUTH_ID, errors=2, last_error="unauthorized", last_error_status=401)]
            delta = CredentialsDelta(token, 1, counts, [])
            entry = Entry("1-1", 0.0, msgspec.msgpack.encode(delta))
            async with database.write() as connection:
                await CredentialIntake(lambda: NOW_MS).take(connection, [entry])
        assert await tokens.refusals() == 4

    with_database(database_url, story)


def test_a_token_is_of_no_use_in_the_other_ones_place(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story(database: Database) -> None:
        tokens = OAuthTokens(database, Secrets([KEY], "test"))
        await tokens.save(STATE)
        async with database.write() as connection:
            await connection.execute(text("UPDATE oauth_tokens SET access_token = refresh_token"))
        found = await tokens.load()
        assert found is not None
        assert (found.access_token, found.refresh_token, found.chain) == (None, None, STATE.chain)

    with_database(database_url, story)
    assert caplog.messages == ["oauth: secret of oauth:access: it was encrypted for another purpose"]


def test_another_key_is_told_once(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story(database: Database) -> None:
        await OAuthTokens(database, Secrets([KEY], "test")).save(STATE)
        tokens = OAuthTokens(database, Secrets([new_key()], "test"))
        for _ in range(2):
            found = await tokens.load()
            assert found == State(None, None, STATE.expires_at_ms, STATE.refreshed_at_ms, STATE.chain, STATE.spent)

    with_database(database_url, story)
    said = "oauth: secret of oauth:refresh: no key of test is the one that it was encrypted with"
    assert caplog.messages == [said]


def test_a_rotation_takes_both_tokens_along(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"

    async def story(database: Database) -> None:
        secrets = load_secrets({}, path)
        tokens = OAuthTokens(database, secrets)
        await tokens.save(STATE)
        async with database.read() as connection:
            before = (await connection.execute(select(oauth_tokens))).one()
        assert (await rotate(database, load_secrets({}, path))).startswith("2 secrets under a new key")
        assert await tokens.load() == STATE
        assert await OAuthTokens(database, load_secrets({}, path)).load() == STATE
        async with database.read() as connection:
            assert (await connection.execute(select(oauth_tokens))).one() != before

    with_database(database_url, story)
