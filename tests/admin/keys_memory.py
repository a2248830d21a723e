"""Keys, their groups and settings in memory: as strict as SQL, and forgetful. Secrets lie in `Keys.secrets` only."""

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from admin.context import KeyServices
from admin.key_balances import SyncProgress
from admin.key_tests import Tested, TestProgress
from admin.live_log import LiveLog
from admin.rules import credential_marks
from admin.rules.balances import Day, Totals
from admin.rules.key_lists import NewCredential
from admin.rules.key_records import (
    GroupFigures,
    LineOutcome,
    LineResult,
    Position,
    Status,
    StatusCounts,
    TestResult,
    UsePoint,
    Wanted,
    percent,
)
from admin.services.failures import (
    DuplicateGroup,
    DuplicateKey,
    GroupInUse,
    NoBalanceQuery,
    NoRouteForKey,
    NoSuchGroup,
    NoSuchKey,
    SyncRunning,
    TestsRunning,
    WorkersNotAsked,
)
from proxy.config import KeyPool, PoolGroup
from proxy.rules.credentials import DEFAULT_GROUP
from proxy.secrets import SecretError


@dataclass(frozen=True, kw_only=True)
class Record:
    id: str
    masked: str
    provider: str
    group: str = DEFAULT_GROUP
    status: Status = Status.ACTIVE
    notes: str = ""
    created_at: int = 0
    updated_at: int = 0
    last_used_at: int | None = None
    requests: int = 0
    successes: int = 0
    errors: int = 0
    last_error: str | None = None
    last_error_status: int | None = None
    last_error_at: int | None = None
    last_test_at: int | None = None
    last_test_result: TestResult = TestResult.UNTESTED
    banned_at: int | None = None
    banned_until: int | None = None
    ban_cause: str | None = None
    tokens_used: int | None = None
    tokens_total: int | None = None
    tokens_at: int | None = None
    tokens_begin: int | None = None
    tokens_end: int | None = None
    tokens_error: str | None = None
    tokens_error_at: int | None = None


@dataclass
class Pool:
    settings: KeyPool = field(default_factory=KeyPool)

    async def current(self) -> KeyPool:
        return self.settings

    async def update(self, *, change: Callable[[KeyPool], KeyPool], actor: str) -> KeyPool:
        assert actor
        self.settings = change(self.settings)
        return self.settings

    def groups(self) -> dict[str, PoolGroup]:
        return {DEFAULT_GROUP: PoolGroup(), **self.settings.groups}


@dataclass
class Keys:
    pool: Pool
    records: dict[str, Record] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    made: int = 0

    def add(self, secret: str, **fields: Any) -> Record:
        """Puts a key there, as it is."""
        self.made += 1
        record = Record(
            id=fields.pop("id", f"key_{self.made}"),
            masked=credential_marks.masked(secret),
            provider=credential_marks.provider(secret),
            created_at=1_000_000 + self.made,
            **fields,
        )
        self.records[record.id], self.secrets[record.id] = record, secret
        return record

    async def create(self, *, secret: str, notes: str, group: str, actor: str) -> Record:
        assert actor
        assert "\0" not in notes
        self.refuse_unknown(group)
        if secret in self.secrets.values():
            raise DuplicateKey
        return self.add(secret, notes=notes, group=group)

    async def create_many(self, *, keys: Sequence[NewCredential], actor: str) -> Sequence[LineResult]:
        assert actor
        results = []
        there = {secret: id_ for id_, secret in self.secrets.items()}
        for key in keys:
            if key.group not in self.pool.groups():
                results.append(LineResult(key.line, LineOutcome.INVALID, None, "there is no such pool group"))
            elif key.secret in there:
                results.append(LineResult(key.line, LineOutcome.DUPLICATE, there[key.secret]))
            else:
                status = Status.ACTIVE if key.enabled else Status.DISABLED
                there[key.secret] = self.add(key.secret, notes=key.notes, group=key.group, status=status).id
                results.append(LineResult(key.line, LineOutcome.ADDED, there[key.secret]))
        return results

    async def get(self, *, id: str) -> Record | None:  # noqa: A002
        return self.records.get(id)

    def found(self, wanted: Wanted) -> builtins.list[Record]:
        assert not any("\0" in text for text in (wanted.q, wanted.group or "", wanted.provider or ""))
        return [
            one
            for one in self.records.values()
            if wanted.status in (None, one.status)
            and wanted.group in (None, one.group)
            and wanted.provider in (None, one.provider)
            and wanted.q.lower() in f"{one.id} {one.notes} {one.masked}".lower()
        ]

    async def list(
        self, *, wanted: Wanted, limit: int, after: Position | None = None, offset: int = 0
    ) -> Sequence[Record]:
        found = sorted(self.found(wanted), key=lambda one: (one.created_at, one.id))
        behind = [one for one in found if after is None or (one.created_at, one.id) > after]
        return behind[offset : offset + limit]

    async def count(self, *, wanted: Wanted) -> int:
        return len(self.found(wanted))

    async def update(
        self,
        *,
        id: str,  # noqa: A002
        actor: str,
        notes: str | None = None,
        group: str | None = None,
        status: Status | None = None,
    ) -> Record:
        assert actor
        record = self.there(id)
        if group is not None:
            self.refuse_unknown(group)
        given = {"notes": notes, "group": group, "status": status}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if status is Status.ACTIVE:
            changes |= {"banned_at": None, "banned_until": None, "ban_cause": None}
        self.records[id] = replace(record, **changes)
        return self.records[id]

    async def delete(self, *, id: str, actor: str) -> None:  # noqa: A002
        assert actor
        self.there(id)
        del self.records[id], self.secrets[id]

    async def delete_many(self, *, ids: Sequence[str], actor: str) -> Sequence[str]:
        there = [one for one in ids if one in self.records]
        for one in there:
            await self.delete(id=one, actor=actor)
        return there

    async def delete_all_of(self, *, status: Status, actor: str) -> int:
        ids = [one.id for one in self.records.values() if one.status is status]
        return len(await self.delete_many(ids=ids, actor=actor))

    async def export(self, *, status: Status | None, group: str | None) -> Sequence[str]:
        return [await self.reveal(id=one.id) for one in self.found(Wanted(status, group))]

    async def reveal(self, *, id: str) -> str:  # noqa: A002
        self.there(id)
        if id in self.unreadable:
            raise SecretError(f"secret of {id}")
        return self.secrets[id]

    async def record_test(
        self,
        *,
        id: str,  # noqa: A002
        result: TestResult,
        problem: str | None,
        http_status: int,
        status: Status | None,
    ) -> None:
        record = self.there(id)
        fields: dict[str, Any] = {"last_test_at": 5_000_000, "last_test_result": result}
        if problem is not None:
            fields |= {"last_error": problem, "last_error_status": http_status}
        if status is not None:
            fields["status"] = status
        self.records[id] = replace(record, **fields)

    def there(self, id_: str) -> Record:
        record = self.records.get(id_)
        if record is None:
            raise NoSuchKey
        return record

    def refuse_unknown(self, group: str) -> None:
        if group not in self.pool.groups():
            raise NoSuchGroup


@dataclass
class Groups:
    pool: Pool
    keys: Keys

    async def list(self) -> Sequence[GroupFigures]:
        groups = sorted(self.pool.groups().items(), key=lambda item: (item[1].priority, item[0]))
        return [self.figures(id_, group) for id_, group in groups]

    async def create(self, *, id: str, group: PoolGroup, actor: str) -> GroupFigures:  # noqa: A002
        if id in self.pool.groups():
            raise DuplicateGroup
        return await self.put(id, group, actor)

    async def update(self, *, id: str, change: Callable[[PoolGroup], PoolGroup], actor: str) -> GroupFigures:  # noqa: A002
        if id not in self.pool.groups():
            raise NoSuchGroup
        return await self.put(id, change(self.pool.groups()[id]), actor)

    async def delete(self, *, id: str, actor: str) -> int:  # noqa: A002
        if id == DEFAULT_GROUP:
            raise GroupInUse("it is where keys of no other group are")
        if id not in self.pool.groups():
            raise NoSuchGroup
        moved = self.keys.found(Wanted(group=id))
        for one in moved:
            await self.keys.update(id=one.id, actor=actor, group=DEFAULT_GROUP)
        self.pool.settings.groups.pop(id)
        return len(moved)

    async def put(self, id_: str, group: PoolGroup, actor: str) -> GroupFigures:
        assert actor
        self.pool.settings = KeyPool(groups={**self.pool.settings.groups, id_: group})
        return self.figures(id_, group)

    def figures(self, id_: str, group: PoolGroup) -> GroupFigures:
        counts = [len(self.keys.found(Wanted(status, id_))) for status in (None, *Status)]
        return GroupFigures(id_, group.name, group.priority, *counts)


@dataclass
class Statistics:
    keys: Keys
    points: dict[int, Sequence[UsePoint]] = field(default_factory=dict)

    async def counts(self) -> StatusCounts:
        records = self.keys.records.values()
        counts = [len(self.keys.found(Wanted(status))) for status in (None, *Status)]
        sums = (sum(getattr(one, name) for one in records) for name in ("requests", "successes", "errors"))
        return StatusCounts(*counts, *sums)

    async def ranking(self, *, limit: int) -> Sequence[Record]:
        used = [one for one in self.keys.records.values() if one.requests]
        return sorted(used, key=lambda one: (-percent(one.successes, one.requests), -one.requests))[:limit]

    async def uses(self, *, period_s: int, since_s: int) -> Sequence[UsePoint]:
        return [one for one in self.points.get(period_s, ()) if one.start_s >= since_s]


@dataclass
class Tests:
    """Tests whose outcome is known: `passed` or not by id, all good by default."""

    keys: Keys
    outcomes: dict[str, Tested] = field(default_factory=dict)
    unroutable: set[str] = field(default_factory=set)
    now: TestProgress = field(default_factory=TestProgress)

    async def test(self, *, id: str) -> Tested:  # noqa: A002
        self.keys.there(id)
        if id in self.unroutable:
            raise NoRouteForKey
        return self.outcomes.get(id, Tested(TestResult.SUCCESS, 200, None, Status.ACTIVE))

    async def start(self) -> TestProgress:
        if self.now.state == "running":
            raise TestsRunning
        self.now = TestProgress("running", total=len(self.keys.records), started_at=1)
        return self.now

    def progress(self) -> TestProgress:
        return self.now

    async def cancel(self) -> TestProgress:
        if self.now.state == "running":
            self.now = self.now._replace(state="cancelled", ended_at=2)
        return self.now


@dataclass
class Balances:
    """Days by key, the empty one for all; `old` is how many rows are older than days are kept."""

    keys: Keys
    days: dict[str, Sequence[Day]] = field(default_factory=dict)
    old: int = 0

    async def totals(self) -> Totals:
        records = self.keys.records.values()
        used, total = (sum(getattr(one, name) or 0 for one in records) for name in ("tokens_used", "tokens_total"))
        times = [one.tokens_at for one in records if one.tokens_at is not None]
        failing = sum(one.tokens_error is not None for one in records)
        oldest, newest = min(times, default=None), max(times, default=None)
        return Totals(len(records), len(times), failing, used, total, total - used, oldest, newest)

    async def history(self, *, since_s: int, id: str = "") -> Sequence[Day]:  # noqa: A002
        return [one for one in self.days.get(id, ()) if one.start_s >= since_s]

    async def forget(self) -> int:
        gone, self.old = self.old, 0
        return gone


@dataclass
class Sync:
    """A sync that is begun and goes on until it is cancelled."""

    keys: Keys
    now: SyncProgress = field(default_factory=SyncProgress)

    async def start(self) -> SyncProgress:
        if not self.keys.pool.settings.balance_queries:
            raise NoBalanceQuery
        if self.now.state == "running":
            raise SyncRunning
        self.now = SyncProgress("running", total=len(self.keys.records), started_at=1)
        return self.now

    def progress(self) -> SyncProgress:
        return self.now

    async def cancel(self) -> SyncProgress:
        if self.now.state == "running":
            self.now = self.now._replace(state="cancelled", ended_at=2)
        return self.now


@dataclass
class Explanations:
    known: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: Sequence[Mapping[str, Any]] = ()
    is_cut_off: bool = False

    async def explain(self, *, request_id: str) -> Mapping[str, Any] | None:
        if self.is_cut_off:
            raise WorkersNotAsked
        return self.known.get(request_id)

    async def latest(self) -> Sequence[Mapping[str, Any]]:
        return self.lines


class KeysMemory:
    """All services about keys. A stream of its live log ends at once."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.keys = Keys(self.pool)
        self.groups = Groups(self.pool, self.keys)
        self.statistics = Statistics(self.keys)
        self.tests = Tests(self.keys)
        self.balances = Balances(self.keys)
        self.sync = Sync(self.keys)
        self.live_log = LiveLog(lifetime_s=0)
        self.explanations = Explanations()

    def clear(self) -> None:
        """Forgets everything."""
        self.pool.settings = KeyPool()
        for known in (
            self.keys.records,
            self.keys.secrets,
            self.statistics.points,
            self.balances.days,
            self.explanations.known,
        ):
            known.clear()
        self.keys.unreadable.clear()
        self.explanations.is_cut_off = False
        self.tests.now = TestProgress()
        self.sync.now = SyncProgress()

    @property
    def services(self) -> KeyServices:
        return KeyServices(
            self.keys,
            self.groups,
            self.pool,
            self.statistics,
            self.tests,
            self.balances,
            self.sync,
            self.live_log,
            self.explanations,
        )
