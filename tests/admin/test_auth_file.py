"""The file is whole at every moment, its owner's alone, and other programs' too."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from admin.auth_file import BYTES_MAX, AuthFile, AuthFileError
from admin.rules.oauth import State, digest

STATE = State("rt-1", "at-1", 1_763_700_000_000, 4, digest("rt-0"), (digest("rt-0"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


def problem(file: AuthFile) -> str:
    with pytest.raises(AuthFileError) as caught:
        file.read()
    return str(caught.value)


def test_what_is_written_is_read_by_another_program(path: Path) -> None:
    path.write_text('{"email": "somebody@example.com", "refresh_token": "rt-0"}')
    AuthFile(path).write(STATE)
    program = "import json, sys; print(json.load(open(sys.argv[1]))['api_key'])"
    read = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert read.stdout == "at-1\n"
    assert json.loads(path.read_text()) == {
        "email": "somebody@example.com",
        "refresh_token": "rt-1",
        "api_key": "at-1",
        "expires_at": 1_763_700_000_000,
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_never_sees_half_of_it(path: Path) -> None:
    file = AuthFile(path)
    file.write(STATE)
    done = threading.Event()
    seen: list[object] = []

    def read() -> None:
        while not done.is_set():
            seen.append(json.loads(path.read_text())["refresh_token"])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        file.write(State("rt-1", "at" * number, 5, 4, "", (digest("rt-1"),)))
    done.set()
    reader.join()
    assert set(seen) == {"rt-1"}


def test_what_says_so_already_is_left_alone(path: Path) -> None:
    file = AuthFile(path)
    file.write(STATE)
    before = path.stat()
    file.write(STATE)
    assert path.stat() == before


def test_another_programs_change_is_noticed(path: Path) -> None:
    file = AuthFile(path)
    assert file.read() is None
    file.write(STATE)
    kept = file.read()
    assert kept is not None
    assert (kept.refresh_token, kept.api_key, kept.expires_at_ms) == ("rt-1", "at-1", 1_763_700_000_000)
    assert file.read() is kept, "not read again"
    path.write_text('{"refresh_token": "rt-9"}')
    os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    kept = file.read()
    assert kept is not None
    assert (kept.refresh_token, kept.written_at_ms) == ("rt-9", 1_700_000_000_000)
    path.unlink()
    assert file.read() is None


def test_another_login_is_not_overwritten(path: Path) -> None:
    path.write_text('{"refresh_token": "rt-of-somebody"}')
    before = State("rt-of-somebody", None, 0, 0, "")
    with pytest.raises(AuthFileError) as caught:
        AuthFile(path).write(STATE)
    assert str(caught.value) == f"{path}: it holds another login, and is left as it is"
    AuthFile(path).write(STATE, before)
    assert json.loads(path.read_text())["refresh_token"] == "rt-1"


def test_a_broken_file_is_told_and_left_alone(path: Path) -> None:
    file = AuthFile(path)
    path.write_text('{"refresh_token": "canary')
    assert problem(file) == f"{path}: it is not JSON"
    with pytest.raises(AuthFileError, match="it is not JSON"):
        file.write(STATE)
    assert path.read_text() == '{"refresh_token": "canary'
    path.write_text('{"refresh_token": "rt-2"}')
    assert file.read() is not None


def test_files_that_cannot_be_used(path: Path) -> None:
    path.mkdir()
    assert problem(AuthFile(path)) == f"{path}: Is a directory"
    path.rmdir()
    path.write_bytes(b" " * (BYTES_MAX + 1))
    assert problem(AuthFile(path)) == f"{path}: it is longer than {BYTES_MAX} bytes"
    nowhere = path.parent / "none" / "auth.json"
    assert AuthFile(nowhere).read() is None
    with pytest.raises(AuthFileError, match="No such file or directory"):
        AuthFile(nowhere).write(STATE)


def test_a_link_stays_one(path: Path) -> None:
    target = path.parent / "elsewhere.json"
    path.symlink_to(target)
    AuthFile(path).write(STATE)
    assert path.is_symlink()
    assert json.loads(target.read_text())["api_key"] == "at-1"


def test_a_write_that_fails_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path.write_text("{}")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AuthFileError, match="No space left on device"):
        AuthFile(path).write(STATE)
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]
