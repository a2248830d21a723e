"""The version, which a package's metadata must agree with."""

import re
import tomllib
from pathlib import Path

from proxy.version import VERSION

ROOT = Path(__file__).parents[2]


def test_the_version_is_spelled_once_and_as_packages_spell_it() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", VERSION)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "proxy.version.VERSION"}
    assert "version" not in project["project"]
