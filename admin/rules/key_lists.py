"""Lists of keys as people have them, read line by line. Pure.

- Text: one key a line, with `,notes,group` behind it if wanted. Empty lines and those that begin with `#` are skipped.
- CSV: the same with a header, whose names say what is in which column; `;` or a tabulator may stand between them.
  Columns of other names are passed over, as exports have them.
- JSON: an array of keys, or of objects with `key`, `notes`, `poolGroup` and `status`; also as `keys` of an object, with
  the `poolGroup` of those that name none beside it.

A line that cannot be used keeps no other from being read. What is said of it has its number and the ends of its key.
Where it cannot be told what is a key, nothing is read: a header that names no column of keys, or one that is misspelt.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from admin.rules.credential_marks import masked
from proxy.rules.credentials import DEFAULT_GROUP
from proxy.sources import values
from proxy.sources.structs import nearest

SECRET_LENGTH_MAX = 8192
NOTES_LENGTH_MAX = 1000
# What a field is called, ours first.
NAMES: dict[str, tuple[str, ...]] = {
    "key": ("key", "secret", "api_key", "apikey", "token"),
    "notes": ("notes", "note", "name", "comment"),
    "group": ("group", "poolgroup", "pool_group", "pool"),
    "status": ("status",),
}
SHOWN = ("key", "notes", "poolGroup", "status")
"""What messages call them."""
NO_LIST = "expected an array of keys, or an object with one as `keys`"
NOT_JSON = "it is not JSON"
BESIDE_KEYS = ("keys", "poolGroup")
SEPARATORS = (",", ";", "\t")
_BOM = "\ufeff"
_WORD = re.compile(r"[A-Za-z][A-Za-z_ ]{0,23}")
_OF_KEYS = re.compile(r"([A-Za-z]+[ _-])*(api)?(key|token|secret|credential)s?([ _-][A-Za-z]+)*", re.IGNORECASE)
SECRET_LIKE = re.compile(r"(?=.*[0-9])\S{16,}")


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


class InvalidList(InvalidLine, frozen=True):
    """Why nothing of a list was read; it is all that is told of it then."""


Read = NewCredential | InvalidLine


def read(text: str, group: str | None = None) -> list[Read]:
    """What a text has, in its order. `group` is that of keys that name none; None: as the text says, or `default`."""
    text = text.removeprefix(_BOM)
    if text.lstrip()[:1] in ("[", "{"):
        return list(_json(text, group))
    return list(_lines(text, group or DEFAULT_GROUP))


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
            if problem := _header_problem(cells):
                yield InvalidList(number, "", problem)
                return
            columns = _header(cells)
            if columns:
                continue
        found = dict(zip(columns or ("key", "notes", "group"), cells, strict=False))
        yield _entry(found, number, group)


def _separator(line: str) -> str:
    """What stands between the columns, if a first line names them."""

    def names(cells: Sequence[str]) -> bool:
        return bool(_header(cells)) or _header_problem(cells) is not None

    return next((one for one in SEPARATORS if one in line and names(_cells(line, one) or ())), ",")


def _cells(line: str, separator: str) -> list[str] | None:
    """A line's parts; None where its quotes make no sense."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True, delimiter=separator))]
    except csv.Error:
        return None


def _header(cells: Iterable[str]) -> list[str]:
    """The fields that a first line names; none where it is no header."""
    names = [known(cell) or cell for cell in cells]
    return names if "key" in names and not any(map(SECRET_LIKE.fullmatch, cells)) else []


def _header_problem(cells: Sequence[str]) -> str | None:
    """Why a first line cannot be the header that it looks like; None where it is a good one, or has a key."""
    names = [known(cell) for cell in cells]
    if _header(cells):
        for cell, name in zip(cells, names, strict=True):
            if name is None and (near := difflib.get_close_matches(cell.lower(), _SPELLED, n=1, cutoff=0.8)):
                return f"its first line names a column {_shown(cell)}, the nearest known name is {near[0]}"
        return None
    if not all(_is_word(cell) for cell in cells if cell):
        return None
    if not any(names) and not any(_OF_KEYS.fullmatch(cell) for cell in cells):
        return None
    found = ", ".join(_shown(cell) for cell in cells)
    return f"its first line names columns, but none of keys: found {found}, expected key, and {', '.join(SHOWN[1:])}"


def _is_word(text: str) -> bool:
    return any(each.fullmatch(text) for each in (_WORD, _OF_KEYS)) or known(text) is not None


def _shown(name: str) -> str:
    """A name that nobody knows. It may be a key where the list is no such list."""
    return name if _is_word(name) else masked(name)


def known(name: str) -> str | None:
    """Which field a name stands for, however it is written: `API key` is `api_key`."""
    spelled = name.strip().lower().replace(" ", "_").replace("-", "_")
    return next((field for field, names in NAMES.items() if spelled in names), None)


_SPELLED = [name for names in NAMES.values() for name in names]


def _json(text: str, group: str | None) -> Iterator[Read]:
    try:
        found: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        yield InvalidList(1, "", NOT_JSON)
        return
    if isinstance(found, dict):
        if "keys" in found and (strange := found.keys() - set(BESIDE_KEYS)):
            yield InvalidList(1, "", f"{_shown(min(strange))}: unknown field, {nearest(min(strange), BESIDE_KEYS)}")
            return
        group = group or found.get("poolGroup")
        found = found.get("keys")
    if not isinstance(found, list) or not isinstance(group, str | None):
        yield InvalidList(1, "", NO_LIST if not isinstance(found, list) else "poolGroup: expected text")
        return
    for number, one in enumerate(found, 1):
        yield _json_entry(one, number, group or DEFAULT_GROUP)


def _json_entry(one: object, number: int, group: str) -> Read:
    if isinstance(one, str):
        return _entry({"key": one}, number, group)
    if not isinstance(one, dict):
        return InvalidLine(number, "", "expected a key, or an object with one")
    fields = {known(name): value for name, value in one.items()}
    texts = {field: value for field, value in fields.items() if field is not None and isinstance(value, str)}
    key_shown = masked(texts["key"]) if "key" in texts else ""
    if None in fields:
        strange = next(name for name in one if known(name) is None)
        problem = f"{_shown(strange)}: unknown field, {nearest(strange, SHOWN)}"
        return InvalidLine(number, key_shown, problem)
    for field in ("notes", "group"):
        if field not in texts and fields.get(field) is not None:
            return InvalidLine(number, key_shown, f"its {field}: expected text")
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
