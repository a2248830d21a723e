"""The prefix that a path names."""

import pytest

from admin.rules.prefix_paths import prefix_in

BASE = "/api/mappings"


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        (b"/openai", "/openai"),
        (b"/openai/", "/openai"),
        (b"/openai/v1", "/openai/v1"),
        (b"/%2Fopenai%2Fv1", "/openai/v1"),
        (b"/%2fopenai", "/openai"),
        (b"/openai%2Fv1", "/openai/v1"),
        (b"/%2F", "/"),
        (b"/a%2520b", "/a%20b"),
        (b"/batch-delete", "/batch-delete"),
        (b"/%6fpenai", "/openai"),
        (b"", None),
        (b"/", None),
        (b"//", None),
        (b"/a%20b", None),
        (b"/..", None),
        (b"/a/%2e%2e/b", None),
        (b"/%ff", None),
        (b"/%00", None),
        (b"/%C3%A4", None),
    ],
)
def test_a_path_names_a_prefix(path: bytes, prefix: str | None) -> None:
    assert prefix_in(BASE.encode() + path, BASE) == prefix
