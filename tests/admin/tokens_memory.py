"""Access tokens and their ledgers in memory: as strict as SQL and Redis, and forgetful."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from admin.context import TokenServices
from admin.rules import access_tokens as rules
from admin.rules import token_terms
from admin.rules.access_tokens import NewToken, QuotaChange, QuotaOperation, TokenChange
from admin.rules.token_records import CleanupStanding, Edited, Made, Quota, QuotaLog, Span, StoredToken, Wanted
from admin.services.failures import CounterAway, NoSuchToken, QuotaTooLarge
from admin.token_ports import LedgerQueue
from proxy.rules.access_tokens import AMOUNT_MAX, Action, State, digest_of


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Logs:
    """By a token's id, oldest first."""

    rows: dict[str, list[QuotaLog]] = field(default_factory=dict)

    def add(self, token: StoredToken, before: int, after: Quota, action: Action, **fields: Any) -> None:
        rows = self.rows.setdefault(token.id, [])
        row = QuotaLog(
            id=sum(map(len, self.rows.values())) + 1,
            sequence=len(rows) + 1,
            ws_id=token.terms.ws_id,
            email=token.terms.email,
            quota_before=before,
            quota_after=after.remaining,
            quota_change=after.remaining - before,
            total_after=after.total,
            action=action,
            unit=token.terms.unit,
            **{"created_at": now_ms(), **fields},
        )
        rows.append(row)

    def of(self, token: str, span: Span) -> list[QuotaLog]:
        begin_ms, end_ms = span.begin_ms or 0, span.end_ms or 2**63
        assert begin_ms < 2**63
        return [row for row in reversed(self.rows.get(token, [])) if begin_ms <= row.created_at < end_ms]

    async def list(self, *, token: str, span: Span, limit: int, offset: int = 0) -> Sequence[QuotaLog]:
        assert offset + limit < 2**63
        return self.of(token, span)[offset : offset + limit]

    async def count(self, *, token: str, span: Span) -> int:
        return len(self.of(token, span))


@dataclass
class Tokens:
    """`is_cut_off`: Redis does not answer. `quotas` are what it has, by a token's id."""

    logs: Logs
    tokens: dict[str, StoredToken] = field(default_factory=dict)
    quotas: dict[str, Quota] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    is_cut_off: bool = False

    def put(self, token: str, text: str, total: int | None = None, **terms: Any) -> StoredToken:
        """Puts a token there, as it is."""
        quota = None if total is None else Quota(total, total)
        made = StoredToken(
            id=token,
            digest=digest_of(text.encode()),
            shown=rules.shown(text),
            terms=rules.TokenTerms(**{"ws_id": "w", "email": "e@x.test", **terms}),
            quota=quota,
            sequence=0 if quota is None else 1,
            synced_at=None if quota is None else now_ms(),
            revision=len(self.tokens) + 1,
            created_at=now_ms() + len(self.tokens),
            updated_at=now_ms(),
            deleted_at=None,
        )
        self.tokens[token] = made
        if quota is not None:
            self.quotas[token] = quota
            self.logs.add(made, 0, quota, Action.INIT)
        return made

    async def create(self, *, new: NewToken) -> Made:
        terms, total = token_terms.created(new, now_ms())
        number = len(self.tokens) + 1
        text = rules.text_of(number.to_bytes(rules.RANDOM_BYTES, "big"))
        fields = {name: getattr(terms, name) for name in terms.__struct_fields__}
        made = self.put(rules.id_of(number.to_bytes(rules.ID_RANDOM_BYTES, "big")), text, total, **fields)
        return Made(Edited(made, not self.is_cut_off), text)

    async def find(self, *, name: str) -> StoredToken | None:
        assert "\0" not in name
        if rules.is_text(name):
            return next((one for one in self.tokens.values() if one.digest == digest_of(name.encode())), None)
        return self.tokens.get(name)

    async def list(self, *, wanted: Wanted, limit: int, offset: int = 0) -> Sequence[StoredToken]:
        assert offset + limit < 2**63
        return self.of(wanted)[offset : offset + limit]

    async def count(self, *, wanted: Wanted) -> int:
        return len(self.of(wanted))

    def of(self, wanted: Wanted) -> Sequence[StoredToken]:
        return [
            one
            for one in sorted(self.tokens.values(), key=lambda one: (one.created_at, one.id), reverse=True)
            if wanted.ws_id in (None, one.terms.ws_id)
            and wanted.email in (None, one.terms.email)
            and (wanted.state == one.terms.state if wanted.state else one.terms.state is not State.DELETED)
        ]

    async def live(self, *, tokens: Sequence[StoredToken]) -> Sequence[StoredToken]:
        if self.is_cut_off:
            return tokens
        return [
            one
            if one.quota is None
            else msgspec.structs.replace(one, quota=self.quotas.get(one.id, one.quota), is_live=one.id in self.quotas)
            for one in tokens
        ]

    async def update(self, *, id: str, change: TokenChange, request_id: str) -> Edited:  # noqa: A002
        before = self._open(id)
        asked = token_terms.changed(before.terms, change, now_ms())
        quota = before.quota
        if asked.quota is not None:
            quota = self._change(before, asked.quota, request_id)
        after = msgspec.structs.replace(before, terms=asked.terms, updated_at=now_ms())
        if asked.total is not None:
            quota = Quota(asked.total, asked.total)
            self.quotas[id] = quota
            after = msgspec.structs.replace(after, quota=quota, sequence=1, synced_at=now_ms())
            self.logs.add(after, 0, quota, Action.INIT)
        self.tokens[id] = after
        is_live = asked.quota is not None
        return Edited(msgspec.structs.replace(after, quota=quota, is_live=is_live), not self.is_cut_off)

    async def delete(self, *, id: str) -> Edited:  # noqa: A002
        before = self._open(id)
        terms = msgspec.structs.replace(before.terms, state=State.DELETED)
        self.tokens[id] = msgspec.structs.replace(before, terms=terms, deleted_at=now_ms())
        return Edited(self.tokens[id], not self.is_cut_off)

    def _open(self, token: str) -> StoredToken:
        found = self.tokens.get(token)
        if found is None or found.terms.state is State.DELETED:
            raise NoSuchToken(token)
        return found

    def _change(self, token: StoredToken, change: QuotaChange, request_id: str) -> Quota:
        if self.is_cut_off:
            raise CounterAway
        before = self.quotas[token.id]
        if request_id in self.keys:
            return before
        operation, amount = change
        match operation:
            case QuotaOperation.ADD:
                after = Quota(before.remaining + (amount or 0), before.total + (amount or 0))
            case QuotaOperation.SET:
                after = Quota(amount or 0, before.total)
            case QuotaOperation.RESET:
                after = Quota(amount or before.total, amount or before.total)
        if max(after) > AMOUNT_MAX:
            raise QuotaTooLarge
        self.keys.add(request_id)
        self.quotas[token.id] = after
        self.logs.add(token, before.remaining, after, Action.RECHARGE, request_id=request_id)
        return after


@dataclass
class Export:
    """The rows of `logs` as lines of their numbers."""

    logs: Logs

    async def csv(self, *, token: str | None, span: Span) -> AsyncIterator[str]:
        yield "token,sequence\r\n"
        for name in [token] if token is not None else [*self.logs.rows]:
            for row in reversed(self.logs.of(name, span)):
                yield f"{name},{row.sequence}\r\n"


@dataclass
class LedgerStream:
    known: tuple[int, float] | None = (0, 0.0)

    def lag(self) -> tuple[int, float] | None:
        return self.known


@dataclass
class Cleanup:
    """Is triggered, and runs until it is told that it does not."""

    is_running: bool = False

    def trigger(self) -> bool:
        begun, self.is_running = not self.is_running, True
        return begun

    async def standing(self) -> CleanupStanding:
        return CleanupStanding(
            enabled=True,
            retention_days=180,
            interval_hours=24,
            batch_rows=10_000,
            last_at_ms=1_760_756_415_000,
            last_rows=15_234,
            total_rows=1_523_456,
            next_at_ms=None,
            is_running=self.is_running,
        )


class TokensMemory:
    """All services about access tokens."""

    def __init__(self) -> None:
        self.logs = Logs()
        self.tokens = Tokens(self.logs)
        self.ledger = LedgerStream()
        self.cleanup = Cleanup()

    def clear(self) -> None:
        """Forgets everything."""
        self.logs.rows.clear()
        self.tokens.tokens.clear()
        self.tokens.quotas.clear()
        self.tokens.keys.clear()
        self.tokens.is_cut_off = False

    @property
    def services(self) -> TokenServices:
        queue = LedgerQueue(self.ledger, 0.5, 4000)
        return TokenServices(self.tokens, self.logs, Export(self.logs), queue, self.cleanup)
