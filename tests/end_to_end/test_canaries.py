"""The search finds a secret in each spelling, wherever it begins."""

import base64
import json
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.end_to_end.canaries import Canaries


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
def test_each_spelling_is_found(before: str) -> None:
    canaries = Canaries()
    secret = canaries.plant("one")
    text = f"{before}{secret} and more"
    for spelled in (
        text.encode(),
        base64.b64encode(text.encode()),
        base64.urlsafe_b64encode(text.encode()),
        quote(text, safe="").encode(),
        urlencode({"key": text}).encode(),
        json.dumps({"key": text}).encode(),
        text.encode().hex().encode(),
    ):
        assert {find.name for find in canaries.in_bytes(spelled, "here")} == {"one"}
    assert canaries.in_bytes(text[:-20].encode() + b"nothing", "here") == []


def test_files_are_searched_but_for_excused_ones(tmp_path: Path) -> None:
    canaries = Canaries()
    secret = canaries.plant("one")
    (tmp_path / "below").mkdir()
    for name in ("auth.json", "below/log"):
        (tmp_path / name).write_text(f"x{secret}")
    assert [find.where for find in canaries.in_files(tmp_path, ["auth.json"])] == ["below/log"]
    assert canaries.named("two").in_files(tmp_path) == []
