"""The terms of access tokens: what a new one begins with, and what a change makes of them. Pure: time is an argument.

What cannot be is an InvalidToken, which says which field is wrong, and what was expected.
"""

import re

import msgspec

from admin.rules import dates
from admin.rules.access_tokens import (
    DAYS_MAX,
    Asked,
    Changed,
    InvalidToken,
    NewToken,
    Operation,
    QuotaChange,
    QuotaOperation,
    QuotaType,
    TokenChange,
    TokenTerms,
)
from admin.rules.dates import DAY_MS
from proxy.rules.access_tokens import AMOUNT_MAX, State, Unit
from proxy.sources import values

END_MAX_MS = 253_402_300_799_000
"""The last second of the year 9999, behind which no date can be written."""
LIST_BYTES_MAX = 16_384
"""Of each list, as JSON: workers and Redis keep them with the token."""
MODEL_LENGTH_MAX = 255
BURST_MIN = 10
"""How many requests a second go with a rate a minute that says nothing of it, if that is not more."""
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def burst_of(per_minute: int) -> int:
    """How many requests a second go with a rate a minute that says nothing of it."""
    return max(BURST_MIN, -(-per_minute // 60)) if per_minute else 0


def created(asked: NewToken, now_ms: int) -> tuple[TokenTerms, int | None]:
    """Returns the terms of a new token, and its quota. Raises InvalidToken."""
    quota_type = asked.quota_type or QuotaType.TIME
    if quota_type is QuotaType.TIME:
        _refuse("total_quota", asked.total_quota, "quota_type time", "quota_type count or hybrid")
        _refuse("unit", asked.unit, "quota_type time", "quota_type count or hybrid")
    elif asked.total_quota is None:
        raise InvalidToken("total_quota", f"missing, expected a quota with quota_type {quota_type}")
    terms = TokenTerms(
        ws_id=_plain("ws_id", asked.ws_id),
        email=_email(asked.email),
        quota_type=quota_type,
        unit=None if quota_type is QuotaType.TIME else asked.unit or Unit.REQUESTS,
        expires_at=_expiry(asked.operation, asked, None, now_ms),
    )
    if terms.expires_at is not None and terms.expires_at <= now_ms:
        raise InvalidToken("specific_date", "found a time that has passed, expected one to come")
    _refuse_odd_end(terms)
    return _bounded(terms, asked), asked.total_quota


def changed(terms: TokenTerms, asked: TokenChange, now_ms: int) -> Changed:
    """Returns what a change makes of a token. Raises InvalidToken."""
    total, quota = _quota(terms, asked)
    quota_type = asked.quota_type or terms.quota_type
    unit = terms.unit if total is None else asked.unit or Unit.REQUESTS
    if asked.unit is not None and asked.unit is not unit:
        problem = "a quota is counted in one unit to its end" if unit else "nothing is counted with quota_type time"
        raise InvalidToken("unit", f"{problem}, expected {unit or 'quota_type count or hybrid with it'}")
    wanted = msgspec.structs.replace(
        terms,
        quota_type=quota_type,
        unit=unit,
        state=terms.state if asked.state is None else State(asked.state),
    )
    if asked.operation is None:
        _refuse("days", asked.days, "no operation", "operation add")
        _refuse("specific_date", asked.specific_date, "no operation", "operation set")
    else:
        expires_at = _expiry(asked.operation, asked, terms, now_ms)
        wanted = msgspec.structs.replace(wanted, expires_at=expires_at)
    _refuse_odd_end(wanted)
    return Changed(_bounded(wanted, asked), total, quota)


def _quota(terms: TokenTerms, asked: TokenChange) -> tuple[int | None, QuotaChange | None]:
    """The quota of a first counter, and what is to be done to one that is there."""
    operation, amount = asked.quota_operation, asked.quota_amount
    if terms.unit is not None and asked.quota_type is QuotaType.TIME:
        raise InvalidToken("quota_type", "a token with a quota keeps it, expected count or hybrid, or a new token")
    if operation is None:
        _refuse("quota_amount", amount, "no quota_operation", f"one of {', '.join(QuotaOperation)} with it")
        if asked.quota_type not in (None, terms.quota_type):
            raise InvalidToken(
                "quota_operation", f"missing, expected one of {', '.join(QuotaOperation)} with another quota_type"
            )
        _refuse("total_quota", asked.total_quota, "no quota_operation", "quota_operation and quota_amount")
        return None, None
    if terms.unit is None:
        if asked.quota_type in (None, QuotaType.TIME):
            raise InvalidToken("quota_operation", "the token has no quota, expected quota_type count or hybrid with it")
        if (total := asked.total_quota if amount is None else amount) is None or total < 1:
            raise InvalidToken("quota_amount", f"expected an integer from 1 to {AMOUNT_MAX}, the first quota")
        return total, None
    _refuse("total_quota", asked.total_quota, "a quota that is there", "quota_amount")
    least = 0 if operation is QuotaOperation.SET else 1
    if amount is None and operation is not QuotaOperation.RESET:
        raise InvalidToken("quota_amount", f"missing, expected an amount with quota_operation {operation}")
    if amount is not None and amount < least:
        raise InvalidToken("quota_amount", f"expected an integer from {least} to {AMOUNT_MAX} with {operation}")
    return None, QuotaChange(operation, amount)


def _expiry(operation: Operation, asked: Asked, terms: TokenTerms | None, now_ms: int) -> int | None:
    """When a token is to end; `terms` are None of a new one."""
    match operation:
        case Operation.ADD:
            _refuse("specific_date", asked.specific_date, "operation add", "operation set")
            if asked.days is None:
                raise InvalidToken("days", f"missing, expected an integer from 1 to {DAYS_MAX} with operation add")
            if terms is not None and terms.expires_at is None:
                raise InvalidToken("operation", "the token has no end to add days to, expected set")
            end_ms = now_ms if terms is None else max(terms.expires_at or 0, now_ms)
            return _possible("days", end_ms + asked.days * DAY_MS)
        case Operation.SET:
            _refuse("days", asked.days, "operation set", "operation add")
            if asked.specific_date is None:
                raise InvalidToken("specific_date", f"missing, expected {dates.EXPECTED} with operation set")
            found = dates.begin_ms(asked.specific_date)
            if found is None:
                raise InvalidToken("specific_date", f"expected {dates.EXPECTED}")
            return _possible("specific_date", found)
        case Operation.UNLIMITED:
            _refuse("days", asked.days, "operation unlimited", "operation add")
            _refuse("specific_date", asked.specific_date, "operation unlimited", "operation set")
            return None


def _possible(field: str, end_ms: int) -> int:
    """An end that can be shown, and is not 0, which workers take for none."""
    if not 0 < end_ms <= END_MAX_MS:
        raise InvalidToken(field, "expected an end behind 1970-01-01 and before the year 10000")
    return end_ms


def _refuse_odd_end(terms: TokenTerms) -> None:
    if terms.quota_type is QuotaType.COUNT and terms.expires_at is not None:
        raise InvalidToken("operation", "quota_type count has no time, expected unlimited, or quota_type hybrid")
    if terms.quota_type is QuotaType.HYBRID and terms.expires_at is None:
        raise InvalidToken("operation", "quota_type hybrid ends at a time, expected add or set, or quota_type count")


def _bounded(terms: TokenTerms, asked: Asked) -> TokenTerms:
    """The terms with the bounds that are asked for. A burst that nobody set follows the rate a minute."""
    per_minute = _given(asked.rate_limit_per_minute, terms.per_minute)
    follows = terms.per_second == burst_of(terms.per_minute)
    return msgspec.structs.replace(
        terms,
        per_minute=per_minute,
        per_second=_given(asked.rate_limit_burst, burst_of(per_minute) if follows else terms.per_second),
        concurrent=_given(asked.concurrent, terms.concurrent),
        routes=terms.routes if asked.routes is None else _listed("routes", asked.routes),
        models=terms.models if asked.models is None else _listed("models", asked.models),
        networks=terms.networks if asked.networks is None else _listed("networks", asked.networks),
        refunds=terms.refunds if asked.refunds is None else asked.refunds,
        on_store_outage=asked.on_store_outage or terms.on_store_outage,
    )


def _given(asked: int | None, present: int) -> int:
    return present if asked is None else asked


def _listed(field: str, asked: list[str]) -> tuple[str, ...]:
    """A list, each entry as it is compared later, and once."""
    check = {"routes": values.prefix, "models": _model, "networks": values.network}[field]
    found: dict[str, None] = {}
    for number, entry in enumerate(asked):
        try:
            found[check(entry)] = None
        except ValueError as error:
            raise InvalidToken(f"{field}[{number}]", f"expected {error}") from None
    if len(msgspec.json.encode(list(found))) > LIST_BYTES_MAX:
        raise InvalidToken(field, f"expected at most {LIST_BYTES_MAX} bytes")
    return tuple(found)


def _model(text: str) -> str:
    if len(text) > MODEL_LENGTH_MAX or not text.isprintable() or " " in text or "*" in text[:-1]:
        raise ValueError(f"a model's name, which may end with *, of at most {MODEL_LENGTH_MAX} characters")
    return text


def _plain(field: str, text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise InvalidToken(field, "expected plain text, without blanks around it")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(_plain("email", text)):
        raise InvalidToken("email", "expected an address such as user@example.com")
    return text


def _refuse(field: str, found: object, beside: str, expected: str) -> None:
    """Refuses a field that says nothing beside another one."""
    if found is not None:
        raise InvalidToken(field, f"not with {beside}, expected {expected}")
