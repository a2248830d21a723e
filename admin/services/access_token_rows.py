"""An access token as it lies in SQL: everything but its text."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Row

from admin.rules.access_tokens import TokenTerms
from admin.rules.token_records import Quota, StoredToken
from admin.tables import access_tokens

_ROW = access_tokens.c
_LISTS = ("routes", "models", "networks")
_TERMS = TokenTerms.__struct_fields__
_OWN = tuple(name for name in StoredToken.__struct_fields__ if name not in ("terms", "quota", "is_live"))
COLUMNS = tuple(_ROW[name] for name in (*_OWN, *_TERMS, "remaining", "total"))


def stored(row: Row[Any]) -> StoredToken:
    """Of COLUMNS."""
    fields = row._asdict()
    lists = {name: msgspec.json.decode(fields[name]) for name in _LISTS}
    terms = {name: fields[name] for name in _TERMS} | lists | {"refunds": bool(fields["refunds"])}
    quota = None if fields["remaining"] is None else Quota(fields["remaining"], fields["total"])
    own = {name: fields[name] for name in _OWN}
    return StoredToken(**own, terms=msgspec.convert(terms, TokenTerms), quota=quota)


def columns_of(terms: TokenTerms) -> Mapping[str, Any]:
    """Terms as their columns have them."""
    fields = {name: getattr(terms, name) for name in _TERMS}
    lists = {name: msgspec.json.encode(fields[name]).decode() for name in _LISTS}
    return fields | lists | {"refunds": int(terms.refunds)}
