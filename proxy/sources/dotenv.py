r"""The text of a `.env` file to variables. Pure: nothing here reads a file or touches the process's environment.

A line is `NAME=value`, with `export ` before it or not. A value in single quotes is taken as it stands; in double
quotes `\n`, `\t`, `\"`, `\\` and `\$` are replaced; bare, it ends at ` #`. Nothing is
interpolated and nothing spans lines.
"""

import re
from typing import NamedTuple

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*
    (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>(?!['"]).*?) )
    (?:(?:\s+|(?<=['"=\s]))\#.*)?\s*""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class Variable(NamedTuple):
    value: str
    line: int


def parse(text: str) -> dict[str, Variable]:
    """Variables by name; the last of two wins, as in a shell. ValueError carries the number of a line that is none."""
    variables = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(number)
        variables[match["name"]] = Variable(_value(match), number)
    return variables


def _value(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), match["double"])
    return match["single"] if match["single"] is not None else match["bare"]
