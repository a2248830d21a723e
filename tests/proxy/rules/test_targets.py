"""Whether a path climbs, against cases by hand and against a reference that walks the path step by step (C2)."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.targets import as_one, as_served, climbs


def climbs_for_certain(rest: bytes) -> bool:
    """The reference: a walk through the folders that the decoded path names."""
    folders: list[bytes] = []
    for step in unquote_to_bytes(rest).replace(b"\\", b"/").split(b"/"):
        step = step.split(b";")[0]
        if step == b"..":
            if not folders:
                return True
            folders.pop()
        elif step and step != b".":
            folders.append(step)
    return False


@pytest.mark.parametrize(
    "rest",
    [
        b"/..",
        b"/../x",
        b"/a/../..",
        b"/%2e%2e/x",
        b"/.%2E/",
        b"/a/..%2f..",
        b"/..%5cx",
        b"/..;x/y",
        b"/.;x/..%3B/y",
        b"/\\..",
        b"//..",
        b"/./..",
        b"/a//../..",
        b"/%2f..",
        b"..",
    ],
)
def test_a_path_that_climbs_above_its_beginning_is_told(rest: bytes) -> None:
    assert climbs(rest)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"/",
        b"/a/b",
        b"/a/..",
        b"/a/../b",
        b"/...",
        b"/..a",
        b"/a..",
        b"/.",
        b"/%252e%252e/x",
        b"/a%2Fb/../..",
        b"/v1/x.json",
        b"/%2",
        b"/100%",
        b"/a/%2e%2e/",
    ],
)
def test_a_path_that_stays_below_is_let_through(rest: bytes) -> None:
    assert not climbs(rest)


steps = st.sampled_from(
    [b"..", b".", b"", b"a", b"%2e", b"%2E%2e", b".%2e", b"%252e", b"%2f", b"%5C", b"\\", b"%", b"..."]
)


@given(st.lists(st.tuples(st.sampled_from([b"/", b"\\", b"%2f", b"%5c", b""]), steps), max_size=8))
def test_it_agrees_with_a_walk_through_folders(parts: list[tuple[bytes, bytes]]) -> None:
    rest = b"".join(separator + step for separator, step in parts)
    assert climbs(rest) is climbs_for_certain(rest)


@given(st.binary(max_size=30))
def test_it_agrees_on_any_bytes(rest: bytes) -> None:
    assert climbs(rest) is climbs_for_certain(rest)


@pytest.mark.parametrize(
    ("path", "served"),
    [
        (b"", b"/"),
        (b"/", b"/"),
        (b"/V1/Models", b"/v1/models/"),
        (b"/v1//models/", b"/v1/models/"),
        (b"/v1/%6dodels%2Fx", b"/v1/models/x/"),
        (b"/v1/./x/..;y/models", b"/v1/models/"),
        (b"\\v1\\models;a=b", b"/v1/models/"),
        (b"/../../v1", b"/v1/"),
        (b"/%252e%252e", b"/%2e%2e/"),
    ],
)
def test_a_path_is_read_as_servers_may_read_it(path: bytes, served: bytes) -> None:
    assert as_served(path) == served


@pytest.mark.parametrize(
    ("path", "one"),
    [
        (b"/v1/models/M:generateContent", b"/v1/models/M:generateContent"),
        (b"/v1//models;x/./M%3Agen", b"/v1/models/M:gen"),
        (b"/v1\\models/M", b"/v1/models/M"),
        (b"/v1/models/..M", b"/v1/models/..M"),
        (b"/v1/models/M/../N", None),
        (b"/v1/models/M%2F%2e%2E%5cN", None),
        (b"/v1/models/M/..;x/N", None),
    ],
)
def test_a_path_that_may_be_another_one_is_none(path: bytes, one: bytes | None) -> None:
    assert as_one(path) == one
