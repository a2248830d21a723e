"""The file of the last good credentials: written whole, by one worker at a time, for its owner alone."""

import fcntl
import os
from pathlib import Path

import pytest

from proxy.rules.credentials import Credential
from proxy.shared_state.credential_file import CredentialFile
from proxy.shared_state.published import UNREADABLE, Mark
from proxy.shared_state.published_credentials import Published
from tests.proxy.shared_state.key_pools import credential

FIRST, SECOND = (Published(Mark(number, 5), b"generation") for number in (1, 2))


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    return tmp_path / "last-good" / "credentials.msgpack"


def write(path: Path, published: Published, *chunks: list[Credential]) -> bool:
    file = CredentialFile(path)
    content = file.content(published)
    for chunk in chunks:
        content.add(chunk)
    return file.write(content)


def read(path: Path) -> tuple[Published, list[list[Credential]]] | None:
    found = CredentialFile(path).read()
    return None if found is None else (found.published, list(found.chunks()))


def test_what_is_written_is_read_and_replaces_what_was(path: Path) -> None:
    assert read(path) is None
    assert write(path, FIRST)
    assert read(path) == (FIRST, [])
    chunks = [[credential(1), credential(2)], [credential(3)]]
    assert write(path, SECOND, *chunks)
    assert read(path) == (SECOND, chunks)


def test_nobody_else_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        assert write(path, FIRST)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_another_worker_has_written_is_not_written_again(path: Path) -> None:
    assert write(path, FIRST, [credential(1)])
    before = path.stat().st_ino
    assert write(path, FIRST, [credential(1)])
    assert path.stat().st_ino == before


def test_while_another_worker_writes_it_is_left_to_it(path: Path) -> None:
    assert write(path, FIRST)
    with (path.parent / f"{path.name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not write(path, SECOND)
    assert read(path) == (FIRST, [])
    assert write(path, SECOND)


def test_a_disk_that_cannot_keep_it_is_told_once_and_leaves_what_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    assert write(path, FIRST)
    file = CredentialFile(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert [file.write(file.content(SECOND)) for _ in range(2)] == [False, False]
    assert read(path) == (FIRST, [])
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]
    assert caplog.text.count("cannot be kept on disk") == 1
    assert file.write(file.content(SECOND))


def test_a_file_that_is_damaged_is_refused_at_some_point(path: Path) -> None:
    assert write(path, FIRST, [credential(1)], [credential(2)])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = read(path)
        except UNREADABLE:
            continue
        if found is not None:  # cut between two parts, which a file that is replaced whole never is
            assert found[1] in ([], [[credential(1)]])
