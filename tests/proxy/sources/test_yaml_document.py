"""YAML as the configuration reads it: plain values, lines, and refusals of one line."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError
from proxy.sources import yaml_document


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        yaml_document.parse(text, "f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8000", 8000),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("-1", -1),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        (".inf", math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("'8000'", "8000"),
        ("!!str 8000", "8000"),
        ("!!int '8000'", 8000),
        ("[a, 1]", ["a", 1]),
        ("{1: a, on: b}", {"1": "a", "on": "b"}),
        ("&a b", "b"),
    ],
)
def test_values_of_yaml_1_2(text: str, value: Any) -> None:
    read = yaml_document.parse(text, "f.yaml").value
    assert read == value
    assert type(read) is type(value)


def test_every_key_has_its_line() -> None:
    document = yaml_document.parse("a:\n  b: 1\n  c:\n    - d: 2\n", "f.yaml")
    assert document.lines == {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", "0", "d"): 4}


def test_an_alias_repeats_and_a_merge_gives_way_to_the_keys_beside_it() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {y: 4, <<: [{x: 5}, *a]}\nd: *a\n"
    document = yaml_document.parse(text, "f.yaml")
    assert document.value == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 5, "y": 4},
        "d": {"x": 1, "y": 2},
    }
    assert document.lines["b", "y"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: the key is there twice, first on line 1"),
        ("r:\n  /a: 1\n  '/a': 2\n", "f.yaml:3: r./a: the key is there twice, first on line 2"),
        ("a: [1, 2\n", "f.yaml:2: not valid YAML: did not find expected ',' or ']'"),
        ("a: b: c\n", "f.yaml:1: not valid YAML: mapping values are not allowed in this context"),
        ("a: *b\n", "f.yaml:1: not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not valid YAML: but found another document"),
        ("a: \x00\n", "f.yaml: not valid YAML: it has a character that text may not have"),
        ("a: !!python/object:os.system {}\n", "f.yaml:1: a: the tag python/object:os.system has no use here"),
        ("a: !x b\n", "f.yaml:1: a: the tag !x has no use here"),
        ("a: !!int x\n", "f.yaml:1: a: 'x' is no int"),
        ("a: !!set {b}\n", "f.yaml:1: a: the tag set has no use here"),
        ("{[a]: b}\n", "f.yaml:1: a key must be text"),
        ("a: {<<: b}\n", "f.yaml:1: a.<<: only mappings can be merged"),
        ("a: &a [*a]\n", "f.yaml: not usable YAML: nested too deeply, or an alias inside its own anchor"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_huge_number_is_refused() -> None:
    assert refusal(f"a: {'9' * 5000}") == f"f.yaml:1: a: '{'9' * 80}' is no int"


def test_a_text_that_its_aliases_make_huge_is_refused() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))
    assert "more than 200,000 values" in refusal(f"l0: &l0 [x]\n{levels}\n")


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_a_deeply_nested_text_is_refused(depth: int) -> None:
    assert "nested too deeply" in refusal("[" * depth + "]" * depth)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["C"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text("abc/ :#-<", min_size=1).filter(lambda key: key != "<<"), inner)
    ),
)


@given(value=VALUES)
def test_what_pyyaml_writes_is_read_as_it_was(value: Any) -> None:
    assert yaml_document.parse(yaml.safe_dump(value), "f.yaml").value == value


@given(text=st.text() | st.text("ab:{}[]&*!-<>|'\"#, \n\t%?"))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        yaml_document.parse(text, "f.yaml")
        message = "f.yaml"
    except ConfigError as error:
        message = str(error)
    assert message.startswith("f.yaml")
    assert message.isprintable()
