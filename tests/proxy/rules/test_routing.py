"""The longest prefix on whole segments wins (C3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.routing import RouteTable

TABLE = RouteTable({b"/up": "up", b"/up/v1": "v1", b"/up/v1/deep/er": "deeper", b"/other": "other"})


@pytest.mark.parametrize(
    ("path", "route", "rest"),
    [
        (b"/up", "up", b""),
        (b"/up/", "up", b"/"),
        (b"/up/v", "up", b"/v"),
        (b"/up/v1", "v1", b""),
        (b"/up/v1/x//y", "v1", b"/x//y"),
        (b"/up/v1/deep", "v1", b"/deep"),
        (b"/up/v1/deep/er/est", "deeper", b"/est"),
        (b"/up//v1", "up", b"//v1"),
        (b"/up//evil.example/x", "up", b"//evil.example/x"),
        (b"/up/a%2Fb;c=1/%C3%A4", "up", b"/a%2Fb;c=1/%C3%A4"),
        (b"/other/up", "other", b"/up"),
    ],
)
def test_the_longest_prefix_takes_a_path_and_leaves_the_rest_as_it_came(path: bytes, route: str, rest: bytes) -> None:
    assert TABLE.match(path) == (route, rest)


@pytest.mark.parametrize(
    "path", [b"", b"/", b"*", b"up", b"/upx", b"/upx/v1", b"/UP", b"/%75p", b"//up", b"http://a/up", b"/v1"]
)
def test_a_path_below_no_prefix_has_no_route(path: bytes) -> None:
    assert TABLE.match(path) is None


def test_the_root_takes_what_no_other_prefix_does() -> None:
    table = RouteTable({b"/": "root", b"/a/b": "ab"})
    assert table.match(b"/") == ("root", b"/")
    assert table.match(b"/a") == ("root", b"/a")
    assert table.match(b"/a/b/c") == ("ab", b"/c")
    assert table.match(b"/a/bc") == ("root", b"/a/bc")
    assert table.match(b"*") is None


def test_the_root_alone_takes_every_path() -> None:
    assert RouteTable({b"/": "root"}).match(b"/x/y") == ("root", b"/x/y")


def test_a_table_without_routes_takes_nothing() -> None:
    assert RouteTable[str]({}).match(b"/") is None


segments = st.sampled_from([b"a", b"b", b"aa", b"", b"%61"])
paths = st.lists(segments, min_size=1, max_size=5).map(lambda names: b"/" + b"/".join(names))
prefixes = st.lists(st.sampled_from([b"a", b"b", b"aa"]), max_size=4).map(lambda names: b"/" + b"/".join(names))


@given(st.sets(prefixes, max_size=8), paths)
def test_it_agrees_with_trying_every_prefix(known: set[bytes], path: bytes) -> None:
    def is_below(prefix: bytes) -> bool:
        return prefix == b"/" or path == prefix or path.startswith(prefix + b"/")

    best = max(filter(is_below, known), key=len, default=None)
    table = RouteTable({prefix: prefix for prefix in known})
    expected = None if best is None else (best, path if best == b"/" else path[len(best) :])
    assert table.match(path) == expected


PREFIXES = st.sampled_from([b"/", b"/a", b"/a/b", b"/a/b/c", b"/b", b"/b/c/d/e"])


@given(st.dictionaries(PREFIXES, st.integers()), st.dictionaries(PREFIXES, st.integers()), st.sets(PREFIXES), PREFIXES)
def test_an_edited_table_is_the_one_made_anew(
    before: dict[bytes, int], new: dict[bytes, int], gone: set[bytes], path: bytes
) -> None:
    table = RouteTable(before)
    edited = table.edited(gone & before.keys(), new)
    wanted = {prefix: route for prefix, route in before.items() if prefix not in gone} | new
    assert edited.match(path + b"/x") == RouteTable(wanted).match(path + b"/x")
    assert sorted(edited.routes()) == sorted(wanted.values())
    assert table.match(path) == RouteTable(before).match(path), "the table before stays"
