"""Lists of keys in their three forms; a line that is no good is named by its number, and never whole."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.key_lists import (
    NOTES_LENGTH_MAX,
    SECRET_LENGTH_MAX,
    InvalidLine,
    InvalidList,
    NewCredential,
    Read,
    checked,
    known,
    read,
)

LONG = "sk-" + "x" * SECRET_LENGTH_MAX


def shown(found: list[Read]) -> list[tuple[object, ...]]:
    return [
        (one.line, one.secret, one.notes, one.group)
        if isinstance(one, NewCredential)
        else (one.line, one.masked, one.reason)
        for one in found
    ]


def test_a_key_a_line() -> None:
    text = "\ufeffsk-1\r\n\n# a comment\n  sk-2  \nsk-3,mine\nsk-4,mine,main\nsk-5,,main\n"
    assert shown(read(text, "given")) == [
        (1, "sk-1", "", "given"),
        (4, "sk-2", "", "given"),
        (5, "sk-3", "mine", "given"),
        (6, "sk-4", "mine", "main"),
        (7, "sk-5", "", "main"),
    ]


def test_a_header_names_the_columns() -> None:
    text = '# exported\nid,Notes,KEY,poolGroup\n1,"a, b",sk-1,main\n2,,sk-2,\n3\n'
    assert shown(read(text)) == [
        (3, "sk-1", "a, b", "main"),
        (4, "sk-2", "", "default"),
        (5, "", "no key"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '["sk-1", {"key": "sk-2", "notes": "mine", "poolGroup": "main", "status": "disabled"}, {"key": "sk-3"}]',
        ' {"keys": ["sk-1", {"key": "sk-2", "notes": "mine", "group": "main", "status": "disabled"}, {"key": "sk-3"}]}',
    ],
)
def test_json(text: str) -> None:
    found = read(text)
    assert shown(found) == [(1, "sk-1", "", "default"), (2, "sk-2", "mine", "main"), (3, "sk-3", "", "default")]
    assert [isinstance(one, NewCredential) and one.enabled for one in found] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[", (1, "", "it is not JSON")),
        ("[" * 100_000, (1, "", "it is not JSON")),
        ('{"keys": [], "poolGrop": "a"}', (1, "", "poolGrop: unknown field, the nearest known one is poolGroup")),
        ('{"keys": ["a"], "poolGroup": 1}', (1, "", "poolGroup: expected text")),
        (
            '[{"key": "sk-012345678901", "note s": "a", "pool grp": "b"}]',
            (1, "sk...01", "note s: unknown field, the nearest known one is notes"),
        ),
        (
            '[{"sk-012345678901": "notes"}]',
            (1, "", "sk...01: unknown field, expected one of key, notes, poolGroup, status"),
        ),
        ("keyz,notes\nsk-1,a", (1, "", None)),
        ('{"a": 1}', (1, "", "expected an array of keys, or an object with one as `keys`")),
        ("[1]", (1, "", "expected a key, or an object with one")),
        ('[{"notes": "a"}]', (1, "", "no key")),
        ('[{"key": "sk-012345678901", "notes": 1}]', (1, "sk...01", "its notes: expected text")),
        ("sk-012345678901 2", (1, "sk...2", None)),
        ('"sk-1', (1, "...", "a quote without its end")),
        (LONG, (1, "sk-x...xxxx", f"longer than {SECRET_LENGTH_MAX} characters")),
        ("sk-012345678901,,a b", (1, "sk...01", None)),
        (f"sk-012345678901,{'x' * (NOTES_LENGTH_MAX + 1)}", (1, "sk...01", None)),
        ("sk-ä12345678901", (1, "sk...01", None)),
    ],
)
def test_what_cannot_be_used_is_told_without_the_key(text: str, found: tuple[int, str, str | None]) -> None:
    (one,) = read(text)
    assert isinstance(one, InvalidLine)
    number, mask, reason = found
    assert one.line == number
    assert reason is None or (one.masked, one.reason) == (mask, reason)
    assert "0123456789" not in repr(one)
    assert "xxxxx" not in repr(one)


COLUMNS = ", expected key, and notes, poolGroup, status"


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("value,notes", f"its first line names columns, but none of keys: found value, notes{COLUMNS}"),
        ("provider;my-keys", f"its first line names columns, but none of keys: found provider, my-keys{COLUMNS}"),
        ("api key value", f"its first line names columns, but none of keys: found api key value{COLUMNS}"),
        ("access-tokens", f"its first line names columns, but none of keys: found access-tokens{COLUMNS}"),
        ("Key,Poolgroups", "its first line names a column Poolgroups, the nearest known name is poolgroup"),
        ("key,noted", "its first line names a column noted, the nearest known name is note"),
    ],
)
def test_a_header_that_is_none_is_refused_with_all_below_it(head: str, says: str) -> None:
    """Else its words would be a key, or the wrong column keys."""
    (one,) = read(f"# a list\n{head}\nsk-0123456789012345,sk-1\n")
    assert isinstance(one, InvalidList)
    assert (one.line, one.masked) == (2, "")
    assert one.reason == says


@pytest.mark.parametrize(
    "head", ["Key", "API key", "api-key", "Secret", "KEY,,", "id,Key,created at", "Token;Pool Group"]
)
def test_a_header_may_be_written_in_other_ways(head: str) -> None:
    separator = ";" if ";" in head else ","
    place = next(index for index, cell in enumerate(head.split(separator)) if known(cell) == "key")
    (one,) = read(f"{head}\n{separator * place}sk-1\n")
    assert isinstance(one, NewCredential)
    assert (one.line, one.secret) == (2, "sk-1")


@pytest.mark.parametrize(
    "text",
    [
        "sk-one",
        "AIzaSyDabcdefghijklmnopqrstuvwxyzabcdefg",
        "sk-one,notes",
        "sk-0123456789012345,key",
        "sk-0123456789012345,token,pool",
        "sk_live_onlyletterssoonlyletters",
    ],
)
def test_a_key_is_no_header_whatever_is_noted_of_it(text: str) -> None:
    (one,) = read(text)
    assert isinstance(one, NewCredential)
    assert one.secret == text.partition(",")[0]


def test_the_group_of_all_is_that_of_the_caller_or_of_the_text() -> None:
    text = '{"keys": ["sk-1", {"key": "sk-2", "poolGroup": "own"}], "poolGroup": "main"}'
    for group, expected in ((None, ["main", "own"]), ("given", ["given", "own"])):
        assert [one.group for one in read(text, group) if isinstance(one, NewCredential)] == expected
    assert [one.group for one in read('{"keys": ["sk-1"]}') if isinstance(one, NewCredential)] == ["default"]


def test_a_credential_does_not_show_its_secret() -> None:
    one = NewCredential(secret="sk-0123456789abcdefghijklmnop", line=3)
    assert repr(one) == str(one) == f"{one}" == "NewCredential('sk-0...mnop', line=3)"
    assert "456" not in repr([one])


@given(st.text() | st.lists(st.text() | st.none()).map(lambda one: msgspec.json.encode(one).decode()))
def test_any_text_is_read(text: str) -> None:
    for one in read(text):
        assert isinstance(one, InvalidLine) or checked(one) == one


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_separated_as_their_names_are(separator: str) -> None:
    text = f"notes{separator}key\nspare{separator}sk-1\n"
    assert [(one.secret, one.notes) for one in read(text) if isinstance(one, NewCredential)] == [("sk-1", "spare")]
