"""How the published configuration lies in Redis and on disk."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Algorithm, Forwarded, KeyPool, PoolGroup, Route, UpstreamTls
from proxy.shared_state import published
from proxy.shared_state.published import RoutesSection

SECTION = RoutesSection(
    7,
    {
        "/a": Route(target="http://a.example"),
        "/b/c": Route(
            target="https://b.example/base",
            connect_timeout_s=None,
            forwarded=Forwarded.APPEND,
            tls=UpstreamTls(ca="/ca.pem", verify=False),
        ),
    },
)


def test_a_section_comes_back_as_it_was() -> None:
    assert published.decode_routes(published.encode_routes(SECTION)) == SECTION


def test_the_settings_of_the_key_pool_come_back_as_they_were_and_are_the_defaults_where_they_are_missing() -> None:
    key_pool = KeyPool(algorithm=Algorithm.RANDOM, retry_statuses=(429,), groups={"a": PoolGroup(name="A", priority=1)})
    section = RoutesSection(7, {}, 5, key_pool)
    assert published.decode_routes(published.encode_routes(section)) == section
    before = msgspec.msgpack.encode({"version": 7, "routes": {}, "made_ms": 5})
    assert published.decode_routes(before) == RoutesSection(7, {}, 5, KeyPool())


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        published.decode_routes(data)


@pytest.mark.parametrize(
    "value",
    [
        {"version": 1},
        {"version": "1", "routes": {}},
        {"version": 1, "routes": {}, "more": 1},
        {"version": 1, "routes": {"/a": {"target": 1}}},
        {"version": 1, "routes": {"/a": {"target": "http://a.example", "unknown": 1}}},
        {"version": 1, "routes": {"/a": {"target": "http://a.example", "max_connections": 0}}},
        msgspec.Raw(b"\x82\xa7version\x01\xa6routes\x81\xa1\xff\x80"),
    ],
)
def test_what_this_version_does_not_know_is_refused(value: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        published.decode_routes(msgspec.msgpack.encode(value))


def test_a_section_cut_short_is_refused() -> None:
    whole = published.encode_routes(SECTION)
    for length in range(len(whole)):
        with pytest.raises(msgspec.DecodeError):
            published.decode_routes(whole[:length])


@pytest.mark.parametrize(
    ("data", "mark"),
    [
        (b"0@0", (0, 0)),
        (b"12@1763700000000", (12, 1763700000000)),
        (b"12", (12, 0)),
        (b"12@", None),
        (b"@5", None),
        (b"12@five", None),
        (b"12@5@6", None),
        (b"12@" + b"9" * 5000, None),
        (None, None),
        (b"", None),
        (b"-1", None),
        (b"twelve", None),
        ("²".encode(), None),
        (b"9" * 5000, None),
    ],
)
def test_a_version_is_a_number_and_a_time_or_none(data: bytes | None, mark: tuple[int, int] | None) -> None:
    assert published.decode_mark(data) == mark


def test_a_mark_comes_back_as_it_was() -> None:
    mark = RoutesSection(7, {}, 1763700000000).mark
    assert published.decode_mark(published.encode_mark(mark)) == mark
    assert published.encode_mark(mark).startswith(b"7@")


def test_routes_that_stay_are_the_same_objects_in_the_next_section() -> None:
    reader = published.RoutesReader()
    first = reader.read(published.encode_routes(SECTION)).routes
    edited = {"/a": Route(target="http://other.example"), "/b/c": SECTION.routes["/b/c"], "/new": first["/a"]}
    second = reader.read(published.encode_routes(RoutesSection(8, edited)))
    assert (second.version, second.routes) == (8, edited)
    assert second.routes["/b/c"] is first["/b/c"]


def test_a_section_that_is_refused_does_not_disturb_the_next() -> None:
    reader = published.RoutesReader()
    first = reader.read(published.encode_routes(SECTION)).routes
    wrong = {"version": 8, "routes": {"/a": {"target": "http://x.example"}, "/b/c": {"colour": "red"}}}
    with pytest.raises(msgspec.DecodeError):
        reader.read(msgspec.msgpack.encode(wrong))
    assert reader.read(published.encode_routes(SECTION)).routes["/a"] is first["/a"]


def test_what_is_stored_is_read_and_replaces_what_was(tmp_path: Path) -> None:
    file = tmp_path / "last-good" / "routes.msgpack"
    published.store(published.encode_routes(RoutesSection(1, {})), file)
    published.store(published.encode_routes(SECTION), file)
    assert published.stored(file) == SECTION
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [None, b"", b"garbage", published.encode_routes(SECTION)[:-1]])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "routes.msgpack"
    if content is not None:
        file.write_bytes(content)
    assert published.stored(file) is None
    assert published.stored(tmp_path) is None


def test_a_store_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "routes.msgpack"
    published.store(published.encode_routes(SECTION), file)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        published.store(b"another", file)
    assert published.stored(file) == SECTION
    assert list(tmp_path.iterdir()) == [file]
