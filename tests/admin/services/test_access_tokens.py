"""Access tokens in SQL: made once, their text nowhere, edited in the order of revisions, quotas left to Redis."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text

from admin.database import Database, TransactionLost
from admin.rules.access_tokens import (
    InvalidToken,
    NewToken,
    QuotaOperation,
    QuotaType,
    TokenChange,
    TokenTerms,
    is_text,
    shown,
)
from admin.rules.token_records import Made, Quota, Wanted
from admin.services import access_tokens as module
from admin.services.access_tokens import AccessTokens
from admin.services.failures import CounterAway, NoSuchToken, QuotaTooLarge
from admin.tables import access_tokens, access_tokens_revision, token_quota_logs
from proxy.rules.access_tokens import OnStoreOutage, State, Unit, digest_of
from tests.sql_servers import with_database

NOW_MS = 1_763_700_000_000
COUNT = {"quota_type": "count", "total_quota": 10}


class Counters:
    """Counters that a test sets; `failure` is raised instead of an answer."""

    def __init__(self) -> None:
        self.there: dict[str, Quota] = {}
        self.asked: list[tuple[str, QuotaOperation, int | None, str]] = []
        self.failure: Exception | None = None

    async def read(self, digests: Sequence[str]) -> Mapping[str, Quota]:
        if self.failure:
            raise self.failure
        return {digest: self.there[digest] for digest in digests if digest in self.there}

    async def change(self, digest: str, operation: QuotaOperation, amount: int | None, request_id: str) -> Quota:
        self.asked.append((digest, operation, amount, request_id))
        if self.failure:
            raise self.failure
        return Quota(77, 78)


class Tokens:
    """The service, whose clock stands until it is moved, and what it told."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ms = NOW_MS
        self.counters = Counters()
        self.told: list[int] = []
        self.service = AccessTokens(database, lambda: self.now_ms, self.counters)
        self.service.published = self.publish

    async def publish(self, revision: int) -> bool:
        assert await self.revision() >= revision, "told before it is committed"
        self.told.append(revision)
        return True

    async def revision(self) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(select(access_tokens_revision.c.number))).scalar_one())

    async def create(self, **fields: Any) -> Made:
        asked = {"ws_id": "w", "email": "e@x.test", "operation": "unlimited", **fields}
        return await self.service.create(new=msgspec.convert(asked, NewToken))

    async def change(self, token: str, **fields: Any) -> Any:
        edited = await self.service.update(id=token, change=msgspec.convert(fields, TokenChange), request_id="r")
        assert edited.is_published
        return edited.token

    async def rows(self) -> list[dict[str, Any]]:
        async with self.database.read() as connection:
            return [row._asdict() for row in await connection.execute(select(token_quota_logs))]


def test_a_token_is_made_with_the_first_row_of_its_ledger(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        made = await tokens.create(**COUNT, rate_limit_per_minute=60)
        token = made.edited.token
        assert is_text(made.text)
        assert (token.digest, token.shown) == (digest_of(made.text.encode()), shown(made.text))
        assert token.terms == TokenTerms(
            ws_id="w",
            email="e@x.test",
            quota_type=QuotaType.COUNT,
            unit=Unit.REQUESTS,
            per_minute=60,
            per_second=10,
        )
        assert (token.quota, token.sequence, token.synced_at, token.is_live) == (Quota(10, 10), 1, NOW_MS, False)
        assert (token.revision, token.created_at, token.updated_at, token.deleted_at) == (1, NOW_MS, NOW_MS, None)
        assert (made.edited.is_published, tokens.told) == (True, [1])
        assert await tokens.service.find(name=token.id) == await tokens.service.find(name=made.text) == token
        (row,) = await tokens.rows()
        assert {name: value for name, value in row.items() if value is not None} == {
            "id": 1,
            "token": token.id,
            "sequence": 1,
            "ws_id": "w",
            "email": "e@x.test",
            "quota_before": 0,
            "quota_after": 10,
            "quota_change": 10,
            "total_after": 10,
            "action": "init",
            "unit": "requests",
            "created_at": NOW_MS,
        }

    with_database(database_url, story)


def test_a_tokens_text_is_nowhere_in_the_database(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        made = await tokens.create(**COUNT)
        assert made.text not in repr(made)
        async with database.read() as connection:
            for table in (access_tokens, token_quota_logs):
                rows = (await connection.execute(text(f"SELECT * FROM {table.name}"))).all()
                assert rows
                assert made.text.removeprefix("flow_") not in repr(rows)

    with_database(database_url, story)


def test_what_only_time_ends_has_no_counter_and_no_rows(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        token = (await tokens.create(operation="add", days=1, routes=["/a"], refunds=False)).edited.token
        assert (token.quota, token.sequence, token.synced_at, token.terms.unit) == (None, 0, None, None)
        assert (token.terms.routes, token.terms.refunds, token.terms.models) == (("/a",), False, ())
        assert await tokens.rows() == []
        assert list(await tokens.service.live(tokens=[token])) == [token]

    with_database(database_url, story)


def test_each_edit_takes_the_next_revision_and_is_told(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        first = (await tokens.create()).edited.token
        second = (await tokens.create()).edited.token
        tokens.now_ms += 5
        changed = await tokens.change(
            first.id,
            state="disabled",
            on_store_outage="allow",
            concurrent=2,
            networks=["10.0.0.0/8"],
            models=["m*"],
        )
        assert (changed.revision, changed.created_at, changed.updated_at) == (3, NOW_MS, NOW_MS + 5)
        assert changed.terms == msgspec.structs.replace(
            first.terms,
            state=State.DISABLED,
            on_store_outage=OnStoreOutage.ALLOW,
            concurrent=2,
            networks=("10.0.0.0/8",),
            models=("m*",),
        )
        deleted = (await tokens.service.delete(id=second.id)).token
        assert (deleted.terms.state, deleted.revision, deleted.deleted_at) == (State.DELETED, 4, NOW_MS + 5)
        assert tokens.told == [1, 2, 3, 4]
        assert await tokens.service.find(name=first.id) == changed

    with_database(database_url, story)


def test_edits_at_once_have_revisions_without_gaps(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        made = [(await tokens.create()).edited.token.id for _ in range(3)]
        edits = [tokens.change(made[number % 3], concurrent=number) for number in range(12)]
        revisions = [token.revision for token in await asyncio.gather(*edits)]
        assert sorted(revisions) == list(range(4, 16))
        assert await tokens.revision() == 15

    with_database(database_url, story)


def test_a_deleted_token_stays_to_be_read_and_is_not_changed(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        made = await tokens.create(**COUNT)
        name = made.edited.token.id
        await tokens.service.delete(id=name)
        for work in (
            tokens.change(name, state="active"),
            tokens.change(name, quota_operation="reset"),
            tokens.service.delete(id=name),
            tokens.change("tok_none", state="active"),
            tokens.service.delete(id="tok_none"),
        ):
            with pytest.raises(NoSuchToken):
                await work
        assert (await tokens.revision(), tokens.counters.asked, len(await tokens.rows())) == (2, [], 1)
        found = await tokens.service.find(name=made.text)
        assert found is not None
        assert found.terms.state is State.DELETED
        assert await tokens.service.find(name="tok_none") is None

    with_database(database_url, story)


def test_a_quota_is_changed_by_its_counter_alone(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        token = (await tokens.create(**COUNT)).edited.token
        changed = await tokens.change(token.id, operation="unlimited", quota_operation="add", quota_amount=5)
        assert tokens.counters.asked == [(token.digest, QuotaOperation.ADD, 5, "r")]
        assert changed == msgspec.structs.replace(token, quota=Quota(77, 78), is_live=True)
        assert await tokens.service.find(name=token.id) == token, "SQL follows the ledger"
        assert (tokens.told, len(await tokens.rows())) == ([1], 1)

    with_database(database_url, story)


def test_terms_and_quota_change_together_or_not_at_all(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        token = (await tokens.create(**COUNT)).edited.token
        asked = {"concurrent": 9, "quota_operation": "reset"}
        for failure in (CounterAway(), QuotaTooLarge()):
            tokens.counters.failure = failure
            with pytest.raises(type(failure)):
                await tokens.change(token.id, **asked)
            assert (await tokens.service.find(name=token.id), tokens.told) == (token, [1])
        tokens.counters.failure = None
        changed = await tokens.change(token.id, **asked)
        assert (changed.terms.concurrent, changed.quota, changed.revision) == (9, Quota(77, 78), 2)
        assert tokens.told == [1, 2]

    with_database(database_url, story)


def test_a_lost_transaction_does_not_change_a_quota_again(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        token = (await tokens.create(**COUNT)).edited.token
        transact, lost = database.transact, [True]

        async def losing(work: Any) -> Any:
            async def lost_once(connection: Any) -> Any:
                done = await work(connection)
                if lost:
                    lost.clear()
                    raise TransactionLost("a deadlock")
                return done

            return await transact(lost_once)

        database.transact = losing  # type: ignore[method-assign]
        changed = await tokens.change(token.id, concurrent=9, quota_operation="add", quota_amount=5)
        assert len(tokens.counters.asked) == 1
        assert (changed.terms.concurrent, changed.quota) == (9, Quota(77, 78))

    with_database(database_url, story)


def test_a_first_quota_begins_a_ledger(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        token = (await tokens.create()).edited.token
        tokens.now_ms += 5
        asked = {"quota_type": "count", "unit": "nano_usd", "quota_operation": "set", "quota_amount": 2**53 - 1}
        changed = await tokens.change(token.id, **asked)
        assert (changed.quota, changed.sequence, changed.synced_at) == (Quota(2**53 - 1, 2**53 - 1), 1, NOW_MS + 5)
        assert (changed.terms.quota_type, changed.terms.unit) == (QuotaType.COUNT, Unit.NANO_USD)
        (row,) = await tokens.rows()
        assert (row["sequence"], row["action"], row["quota_before"], row["quota_after"], row["unit"]) == (
            1,
            "init",
            0,
            2**53 - 1,
            "nano_usd",
        )
        assert (tokens.counters.asked, tokens.told) == ([], [1, 2])

    with_database(database_url, story)


def test_what_is_refused_leaves_nothing_behind(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        with pytest.raises(InvalidToken, match="total_quota: missing"):
            await tokens.create(quota_type="count")
        token = (await tokens.create()).edited.token
        with pytest.raises(InvalidToken, match="unit: nothing is counted"):
            await tokens.change(token.id, unit="tokens", concurrent=4)
        assert (await tokens.revision(), tokens.told) == (1, [1])
        assert await tokens.service.find(name=token.id) == token

    with_database(database_url, story)


def test_lists_are_newest_first_in_pages_of_what_is_wanted(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        names: list[str] = []
        for number in range(6):
            tokens.now_ms += number // 2  # some are of one moment
            made = await tokens.create(ws_id=f"w{number % 2}", email=f"e{number % 3}@x.test")
            names.append(made.edited.token.id)
        gone, off = names[0], names[3]
        await tokens.service.delete(id=gone)
        await tokens.change(off, state="disabled")

        async def listed(*wanted: Any, limit: int = 10, offset: int = 0) -> list[str]:
            found = await tokens.service.list(wanted=Wanted(*wanted), limit=limit, offset=offset)
            if limit == 10:
                assert await tokens.service.count(wanted=Wanted(*wanted)) == len(found)
            return [one.id for one in found]

        everything = await listed()
        assert sorted(everything) == sorted(names[1:])
        created = {one.id: one.created_at for one in await tokens.service.list(wanted=Wanted(), limit=10)}
        assert everything == sorted(created, key=lambda one: (created[one], one), reverse=True)
        pages = [await listed(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
        assert ([one for page in pages for one in page], [len(page) for page in pages]) == (everything, [2, 2, 1, 0])
        assert await listed(None, None, State.DELETED) == [gone]
        assert await listed(None, None, State.DISABLED) == [off]
        assert sorted(await listed("w0")) == sorted([names[2], names[4]])
        assert await listed("w1", "e1@x.test", None) == [names[1]]
        assert await listed("w1", "e1@x.test", State.DISABLED) == []
        assert await listed("W1") == []

    with_database(database_url, story)


def test_what_is_live_is_what_redis_has(database_url: str) -> None:
    async def story(database: Database) -> None:
        tokens = Tokens(database)
        counted, other, timed = [(await tokens.create(**fields)).edited.token for fields in (COUNT, COUNT, {})]
        tokens.counters.there = {counted.digest: Quota(-3, 10)}
        found = await tokens.service.live(tokens=[timed, counted, other])
        live = msgspec.structs.replace(counted, quota=Quota(-3, 10), is_live=True)
        assert list(found) == [timed, live, other]
        tokens.counters.failure = CounterAway()
        assert list(await tokens.service.live(tokens=[timed, counted])) == [timed, counted]

    with_database(database_url, story)


def test_who_is_told_has_a_moment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that hangs, or that says it has not published, keeps nothing from being done."""
    monkeypatch.setattr(module, "PUBLISHED_S", 0.05)

    async def story(database: Database) -> None:
        tokens = Tokens(database)

        async def hang(_: int) -> bool:
            await asyncio.Event().wait()
            return True

        tokens.service.published = hang
        made = await tokens.create()
        assert made.edited.is_published is False
        assert await tokens.service.find(name=made.text) == made.edited.token
        alone = AccessTokens(database, lambda: NOW_MS, tokens.counters)
        assert (await alone.delete(id=made.edited.token.id)).is_published is False

    with_database(database_url, story)
