"""Secrets come back for their purpose alone, and the key is nobody else's."""

import asyncio
import os
import threading
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError
from proxy.secrets import KEPT_S, VARIABLE, FileSecrets, SecretError, Secrets, load_secrets
from tests.sql_servers import python

# Always the same ones, since they stand in the names of tests.
OLD, NEW = (urlsafe_b64encode(bytes([number] * 32)).decode() for number in range(2))
SECRETS = Secrets([OLD], "test")
PRINT_ENCRYPTED = """
import sys
from pathlib import Path
from proxy.secrets import VARIABLE, FileSecrets, SecretError, Secrets, load_secrets
print(load_secrets({}, Path(sys.argv[1])).encrypt("text", "purpose"))
"""
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS.filter(lambda text: "\0" not in text))
def test_what_is_encrypted_comes_back(text: str, purpose: str) -> None:
    encrypted = SECRETS.encrypt(text, purpose)
    assert encrypted.isascii()
    assert SECRETS.decrypt(encrypted, purpose) == text


@pytest.mark.parametrize("purpose", ["credential:43", "credential:4", "credential:422", "", "token:42"])
def test_a_secret_is_of_no_use_in_another_place(purpose: str) -> None:
    encrypted = SECRETS.encrypt("canary", "credential:42")
    with pytest.raises(SecretError, match=f"^secret of {purpose}: it was encrypted for another purpose$"):
        SECRETS.decrypt(encrypted, purpose)


def test_a_text_cannot_pretend_to_another_purpose() -> None:
    assert SECRETS.decrypt(SECRETS.encrypt("b\0secret", "a"), "a") == "b\0secret"
    with pytest.raises(ValueError, match="a purpose has no NUL"):
        SECRETS.encrypt("secret", "a\0b")


@pytest.mark.parametrize("damage", ["", "not a token", "é", "x{encrypted}", "{half}"])
def test_a_damaged_secret_or_another_key_is_told_without_any_secret(damage: str) -> None:
    encrypted = SECRETS.encrypt("canary", "credential:42")
    other = Secrets([NEW], "RELAYGATE_SECRET_KEY")
    message = "secret of credential:42: no key of {} is the one that it was encrypted with"
    with pytest.raises(SecretError) as caught:
        SECRETS.decrypt(damage.format(encrypted=encrypted, half=encrypted[:50]), "credential:42")
    assert str(caught.value) == message.format("test")
    with pytest.raises(SecretError) as caught:
        other.decrypt(encrypted, "credential:42")
    assert str(caught.value) == message.format("RELAYGATE_SECRET_KEY")
    with pytest.raises(SecretError):
        other.reencrypt(encrypted)


def test_keys_rotate() -> None:
    encrypted = SECRETS.encrypt("text", "purpose")
    both = Secrets([NEW, OLD], "test")
    assert both.decrypt(encrypted, "purpose") == "text"
    again = both.reencrypt(encrypted)
    assert Secrets([NEW], "test").decrypt(again, "purpose") == "text"
    with pytest.raises(SecretError):
        SECRETS.decrypt(again, "purpose")
    with pytest.raises(SecretError):
        SECRETS.decrypt(both.encrypt("text", "purpose"), "purpose")


def test_keys_of_the_environment_come_before_the_file(tmp_path: Path) -> None:
    secrets = load_secrets({VARIABLE: f" {NEW}, {OLD} "}, tmp_path / "none" / "secret.key")
    assert secrets.decrypt(SECRETS.encrypt("text", "purpose"), "purpose") == "text"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("canary", "key 1 of 1 is not a key"),
        (f"{OLD},canary", "key 2 of 2 is not a key"),
        (OLD[:-4], "key 1 of 1 is not a key"),
        ("schlüssel", "key 1 of 1 is not a key"),
        (",", "no key"),
    ],
)
def test_keys_that_are_none(value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_secrets({VARIABLE: value}, tmp_path / "secret.key")
    assert str(caught.value).startswith(f"{VARIABLE}: {message}")
    assert "canary" not in str(caught.value)


def test_the_first_start_makes_the_file_and_the_next_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    encrypted = load_secrets({}, path).encrypt("text", "purpose")
    assert path.stat().st_mode & 0o7777 == 0o600
    assert load_secrets({VARIABLE: ""}, path).decrypt(encrypted, "purpose") == "text"
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_a_file_may_hold_several_keys(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text(f"{NEW}\n{OLD}\n")
    path.chmod(0o400)
    assert load_secrets({}, path).decrypt(SECRETS.encrypt("text", "purpose"), "purpose") == "text"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_may_read(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    load_secrets({}, path)
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_secrets({}, path)
    assert str(caught.value) == f"{path}: others may read it (mode 0{mode:o}), expected 0600: chmod 600 {path}"


@pytest.mark.parametrize("content", [b"", b"canary", b"\xff"])
def test_a_file_without_a_key(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_secrets({}, path)
    assert "canary" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_secrets({}, tmp_path / "none" / "secret.key")
    assert str(caught.value) == f"{tmp_path}/none/secret.key: No such file or directory"


def test_two_starts_at_once_use_one_key(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"

    async def starts() -> list[str]:
        return await asyncio.gather(*(python(PRINT_ENCRYPTED, str(path)) for _ in range(4)))

    encrypted = asyncio.run(starts())
    secrets = load_secrets({}, path)
    assert [secrets.decrypt(one.strip(), "purpose") for one in encrypted] == ["text"] * 4
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_threads_that_start_at_once_use_one_key(tmp_path: Path) -> None:
    """Many more races than processes would give."""
    for turn in range(20):
        path = tmp_path / f"{turn}.key"
        barrier = threading.Barrier(4)
        found: list[str] = []

        def start(path: Path = path, barrier: threading.Barrier = barrier, found: list[str] = found) -> None:
            barrier.wait()
            found.append(load_secrets({}, path).encrypt("text", "purpose"))

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        secrets = load_secrets({}, path)
        assert [secrets.decrypt(one, "purpose") for one in found] == ["text"] * 4


def test_keys_that_are_replaced_are_known_at_once_to_who_uses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    mine, others = load_secrets({}, path), load_secrets({}, path)
    assert isinstance(mine, FileSecrets)
    before = others.encrypt("text", "purpose")
    mine.replace_keys([NEW, *mine.keys])
    assert path.stat().st_mode & 0o7777 == 0o600
    after = others.encrypt("text", "purpose")
    assert Secrets([NEW], "test").decrypt(after, "purpose") == "text"
    several = [("one", "a"), ("two", "b")]
    found = others.encrypt_many(several)
    assert [Secrets([NEW], "test").decrypt(*pair) for pair in zip(found, "ab", strict=True)] == ["one", "two"]
    assert others.decrypt(before, "purpose") == mine.decrypt(after, "purpose") == "text"
    mine.replace_keys([NEW])
    with pytest.raises(SecretError):
        FileSecrets(path).decrypt(before, "purpose")
    path.unlink()
    assert others.decrypt(after, "purpose") == "text"
    assert list(tmp_path.iterdir()) == []


def test_keys_that_cannot_be_written_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.key"
    secrets = load_secrets({}, path)
    assert isinstance(secrets, FileSecrets)
    before = path.read_text()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        secrets.replace_keys([NEW])
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_has_left_the_file_decrypts_a_while_longer(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    now_s = [0.0]
    load_secrets({}, path)
    running = FileSecrets(path, lambda: now_s[0])
    published = running.encrypt("canary", "credential:1")
    rotating = FileSecrets(path)
    rotating.replace_keys([NEW, *rotating.keys])
    rotating.replace_keys([NEW])
    assert running.decrypt(published, "credential:1") == "canary"
    with pytest.raises(SecretError, match="another purpose"):
        running.decrypt(published, "credential:2")
    assert Secrets([NEW], "test").decrypt(running.encrypt("new", "a"), "a") == "new"
    now_s[0] = KEPT_S
    with pytest.raises(SecretError):
        running.decrypt(published, "credential:1")
