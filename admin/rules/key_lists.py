"""Lists of keys as people have them, read line by line. Pure.

- Text: one key a line, with `,notes,group` behind it if wanted. Empty lines and those that begin with `#` are skipped.
- CSV: the same with a header, whose names say what is in which column; `;` or a tabulator may stand between them.
- JSON: an array of keys, or of objects with `key`, `notes`, `poolGroup`; also as `keys` of an object.

A line that cannot be used keeps no other from being read. What is said of it has its number and the ends of its key.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from admin.rules.credential_marks import masked
from proxy.rules.credentials import DEFAULT_GROUP
from proxy.sources import values

SECRET_LENGTH_MAX = 8192
NOTES_LENGTH_MAX = 1000
# What a field is called, ours first.
NAMES: dict[str, tuple[str, ...]] = {
    "key": ("key", "secret", "api_key", "apikey", "token"),
    "notes": ("notes", "note", "name", "comment"),
    "group": ("group", "poolgroup", "pool_group", "pool"),
    "status": ("status",),
}
NO_LIST = "expected an array of keys, or an object with one as `keys`"
SEPARATORS = (",", ";", "\t")
_BOM = "\ufeff"


class NewCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that is to be added, and the line that it was read from (of JSON, its place in the array).

    Its text never has the secret in it.
    """

    secret: str
    notes: str = ""
    group: str = DEFAULT_GROUP
    enabled: bool = True
    line: int = 0

    def __repr__(self) -> str:
        return f"NewCredential({masked(self.secret)!r}, line={self.line})"

    __str__ = __repr__


class InvalidLine(msgspec.Struct, frozen=True):
    """A line that cannot be used, and why. `masked` is empty where no key was found in it."""

    line: int
    masked: str
    reason: str


Read = NewCredential | InvalidLine


def read(text: str, group: str = DEFAULT_GROUP) -> list[Read]:
    """What a text has, in its order. `group` is that of keys that name none."""
    text = text.removeprefix(_BOM)
    if text.lstrip()[:1] in ("[", "{"):
        return list(_json(text, group))
    return list(_lines(text, group))


def checked(given: NewCredential) -> NewCredential | InvalidLine:
    """The credential without blanks at its ends, or why it cannot be used."""
    secret = given.secret.strip()
    problem = _problem(secret, given.notes, given.group)
    if problem is not None:
        return InvalidLine(given.line, masked(secret) if secret else "", problem)
    return given if secret == given.secret else msgspec.structs.replace(given, secret=secret)


def notes_problem(notes: str) -> str | None:
    """Why notes cannot be stored; None if they can."""
    if len(notes) > NOTES_LENGTH_MAX:
        return f"its notes: expected at most {NOTES_LENGTH_MAX} characters"
    # PostgreSQL's texts have no NUL, and UTF-8 no surrogates.
    return "its notes: expected text" if "\0" in notes or not _is_utf8(notes) else None


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _problem(secret: str, notes: str, group: str) -> str | None:
    if not secret:
        return "no key"
    if len(secret) > SECRET_LENGTH_MAX:
        return f"longer than {SECRET_LENGTH_MAX} characters"
    if problem := notes_problem(notes):
        return problem
    try:
        values.secret(secret)
    except ValueError as error:
        return f"expected {error}"
    try:
        values.group_id(group)
    except ValueError as error:
        return f"its group: expected {error}"
    return None


def _lines(text: str, group: str) -> Iterator[Read]:
    columns: list[str] | None = None
    separator = ","
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if columns is None:
            separator = _separator(line)
        cells = _cells(line, separator)
        if cells is None:
            yield InvalidLine(number, masked(line.strip()), "a quote without its end")
            continue
        if columns is None:
            columns = _header(cells)
            if columns:
                continue
        found = dict(zip(columns or ("key", "notes", "group"), cells, strict=False))
        yield _entry(found, number, group)


def _separator(line: str) -> str:
    """What stands between the columns, if a first line names them."""
    return next((one for one in SEPARATORS if one in line and _header(_cells(line, one) or ())), ",")


def _cells(line: str, separator: str) -> list[str] | None:
    """A line's parts; None where its quotes make no sense."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True, delimiter=separator))]
    except csv.Error:
        return None


def _header(cells: Iterable[str]) -> list[str]:
    """The fields that a first line names; none where it is no header."""
    names = [_known(cell) or cell for cell in cells]
    return names if "key" in names else []


def _known(name: str) -> str | None:
    return next((field for field, spelled in NAMES.items() if name.strip().lower() in spelled), None)


def _json(text: str, group: str) -> Iterator[Read]:
    try:
        found: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        yield InvalidLine(1, "", "not JSON")
        return
    if isinstance(found, dict):
        found = found.get("keys")
    if not isinstance(found, list):
        yield InvalidLine(1, "", NO_LIST)
        return
    for number, one in enumerate(found, 1):
        yield _json_entry(one, number, group)


def _json_entry(one: object, number: int, group: str) -> Read:
    if isinstance(one, str):
        return _entry({"key": one}, number, group)
    if not isinstance(one, dict):
        return InvalidLine(number, "", "expected a key, or an object with one")
    fields = {field: value for name, value in one.items() if (field := _known(name)) is not None}
    texts = {field: value for field, value in fields.items() if isinstance(value, str)}
    for field in ("notes", "group"):
        if field not in texts and fields.get(field) is not None:
            return InvalidLine(number, masked(texts.get("key", "")), f"its {field}: expected text")
    return _entry(texts, number, group)


def _entry(found: Mapping[str, str], number: int, group: str) -> Read:
    return checked(
        NewCredential(
            secret=found.get("key", ""),
            notes=found.get("notes", ""),
            group=found.get("group", "") or group,
            enabled=found.get("status", "") != "disabled",
            line=number,
        )
    )
