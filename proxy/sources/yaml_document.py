"""YAML text to plain values and the line of every key. Pure: it opens no file.

The scalars are those of YAML 1.2's core schema: `off`, `yes`, `12:30` are text, not booleans and a number in base 60.
Refused: duplicate keys, tags that make objects, more than one document. Anchors, aliases and `<<` work.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from proxy.config import ConfigError

Path = tuple[str, ...]

# Aliases can make a small text stand for a huge value.
NODES_MAX = 200_000
DEPTH_MAX = 50
_TAG = "tag:yaml.org,2002:"


class Document(NamedTuple):
    """A file's value, and the line (from 1) on which each key path stands."""

    value: Any
    lines: dict[Path, int]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- PyYAML's own contract

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        """PyYAML's hook at each level; libyaml's composer would overflow the C stack and take the process with it."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise RecursionError
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        self._depth -= 1
        super().ascend_resolver()


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _int,
    _TAG + "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    _TAG + "str": str,
    _TAG + "merge": str,
}


def parse(text: str, name: str) -> Document:
    """The document in `text`; `name` stands for it in the ConfigError of anything refused. Empty text is None."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(where, f"not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeError):
        raise ConfigError(name, "not valid YAML: it has a character that text may not have") from None
    except RecursionError:
        raise ConfigError(name, "not usable YAML: nested too deeply") from None
    builder = _Builder(name)
    try:
        value = None if node is None else builder.build(node, ())
    except RecursionError:
        raise ConfigError(name, "not usable YAML: nested too deeply, or an alias inside its own anchor") from None
    return Document(value, builder.lines)


class _Builder:
    """Turns one document's nodes into values and notes where the keys stand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path, int] = {}
        self.nodes = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise ConfigError(self.name, f"not usable YAML: its aliases make more than {NODES_MAX:,} values")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, str(index))) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged |= self._merge(value_node, path)
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            key = self._key(key_node, path)
            if key in own:
                raise self._error(
                    key_node, (*path, key), f"the key is there twice, first on line {self.lines[*path, key]}"
                )
            self.lines[*path, key] = key_node.start_mark.line + 1
            own[key] = self.build(value_node, (*path, key))
        return merged | own

    def _key(self, node: yaml.Node, path: Path) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, path, "a key must be text")
        return str(node.value)

    def _merge(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """The mapping or mappings behind `<<`: the first of several wins, and the mapping's own keys win over all."""
        value = self.build(node, path)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(mapping, dict) for mapping in mappings):
            raise self._error(node, (*path, "<<"), "only mappings can be merged")
        return {key: value for mapping in reversed(mappings) for key, value in mapping.items()}

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        construct = _SCALARS.get(node.tag)
        if construct is None or not isinstance(node, yaml.ScalarNode):
            raise self._error(node, path, f"the tag {node.tag.removeprefix(_TAG)} has no use here")
        try:
            return construct(node.value)
        except ValueError:
            raise self._error(node, path, f"{node.value[:80]!r} is no {node.tag.removeprefix(_TAG)}") from None

    def _error(self, node: yaml.Node, path: Path, problem: str) -> ConfigError:
        return ConfigError(f"{self.name}:{node.start_mark.line + 1}", ".".join(path), problem)
