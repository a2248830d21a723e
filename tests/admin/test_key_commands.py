"""`relaygate keys` and `relaygate import droid2api` on a database file of their own.

All but one run in this process, since each start of another takes a second.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from admin import cli
from proxy.shared_state.bans import split_field
from proxy.shared_state.keys import BANS
from tests.admin.models_upstream import ModelsUpstream, models_upstream
from tests.admin.rules.test_droid2api import DOCUMENTED
from tests.admin.test_cli import REPOSITORY, Ended, Shell, refused
from tests.redis_servers import EMBEDDED, connected, redis_at

A, B, C = (f"fk-{letter * 24}" for letter in "abc")


class InProcess(Shell):
    """A working directory, and commands that `admin.cli` runs in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *words: str, **environment: str) -> Ended:
        with self._monkeypatch.context() as patch:
            patch.chdir(self.folder)
            for name, value in environment.items():
                patch.setenv(name, value)
            status = cli.main(words)
        said = self._capsys.readouterr()
        return Ended(subprocess.CompletedProcess(words, status, said.out, said.err))


@pytest.fixture(name="shell")
def fixture_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    shell = InProcess(tmp_path, monkeypatch, capsys)
    shell.write({})
    return shell


def table(shell: Shell, *words: str) -> list[list[str]]:
    """The rows of `keys list` without ids."""
    head, *rows = shell.done("keys", "list", *words).splitlines()
    assert head.split() == ["ID", "KEY", "PROVIDER", "GROUP", "STATUS", "REQUESTS", "SUCCESS", "NOTES"]
    return [row.split()[1:] for row in rows]


def test_keys_are_imported_once_listed_and_exported(shell: Shell) -> None:
    (shell.folder / "keys.txt").write_text(f"# mine\n{A}\n{B},the spare one\n{A}\n")
    assert shell.done("keys", "import", "keys.txt") == "added 2, there already 1\n"
    assert shell.done("keys", "import", "keys.txt") == "added 0, there already 3\n"
    assert table(shell) == [
        ["fk-a...aaaa", "factory", "default", "active", "0", "-"],
        ["fk-b...bbbb", "factory", "default", "active", "0", "-", "the", "spare", "one"],
    ]
    assert shell.done("keys", "export", "--status", "active") == f"{A}\n{B}\n"
    assert shell.done("keys", "export", "--status", "banned") == ""
    assert table(shell, "--group", "main") == []


def test_a_list_may_come_from_standard_input_and_what_is_wrong_is_told_by_line(shell: Shell) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "admin", "keys", "import", "-", "--format", "csv"],
        cwd=shell.folder,
        env={"PYTHONPATH": str(REPOSITORY)},
        input=f"key,notes,poolGroup\n{A},n,\nfk-bad key-0123456789abcdef,,\n{B},n,nowhere\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ended = Ended(finished)
    assert (ended.status, ended.out) == (1, "added 1, there already 0\n")
    lines = ended.error.splitlines()
    assert [line.partition(": line ")[2][0] for line in lines] == ["3", "4"]
    assert all(line.startswith("relaygate: not imported: line ") for line in lines)
    assert "key-0123" not in ended.error
    assert B not in ended.error


def test_a_group_that_there_is_not_is_told_once(shell: Shell) -> None:
    (shell.folder / "keys.txt").write_text(f"{A}\n{B}\n")
    for group in ("nowhere", "a b"):
        said = refused(shell.run("keys", "import", "keys.txt", "--group", group), 2)
        assert said == f"relaygate: command line: --group: there is no pool group {group!r}\n"


def test_who_has_seen_enough_gets_no_traceback(shell: Shell) -> None:
    (shell.folder / "keys.txt").write_text("".join(f"{A}{number}\n" for number in range(3000)))
    assert shell.run("keys", "import", "keys.txt").status == 0
    with subprocess.Popen(
        [sys.executable, "-m", "admin", "keys", "export"],
        cwd=shell.folder,
        env={"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as export:
        assert export.stdout is not None
        export.stdout.read(1)
        export.stdout.close()
        assert (export.wait(30), export.stderr and export.stderr.read()) == (1, b"")


def test_who_interrupts_gets_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        @property
        def buffer(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert refused(shell.run("keys", "import", "-"), 130) == "relaygate: interrupted\n"


def test_a_file_that_cannot_be_read_is_one_line_and_2(shell: Shell) -> None:
    assert refused(shell.run("keys", "import", "none.txt"), 2) == "relaygate: none.txt: No such file or directory\n"
    (shell.folder / "bytes.txt").write_bytes(b"\xff")
    assert "not UTF-8 text" in refused(shell.run("keys", "import", "bytes.txt"), 2)
    (shell.folder / "keys.txt").write_text(A)
    assert "keys.txt: not json, by how it begins" in refused(
        shell.run("keys", "import", "keys.txt", "--format", "json"), 2
    )
    assert not (shell.folder / "data").exists()


async def asked_about_keys(shell: Shell, *words: str) -> tuple[Ended, ModelsUpstream]:
    """What `keys test` says where A is good, B is dead and C has spent its quota."""
    async with models_upstream() as upstream:
        upstream.statuses = {A: [200], B: [401], C: [402]}
        shell.write({"/m": {"target": upstream.url, "credential": "pool"}})
        allowed = {"RELAYGATE_ALLOW_PRIVATE_TARGETS": "true"}
        await asyncio.to_thread(shell.done, "apply", **allowed)
        ended = await asyncio.to_thread(shell.run, "keys", "test", *words, **allowed)
        shell.write({})  # without the environment, its target would be refused
        return ended, upstream


async def bans(url: str) -> list[str]:
    """Whom workers hear to be banned for all models."""
    async with connected(url) as client:
        fields: Any = await client.hkeys(BANS)
        return [split_field(field)[0] for field in fields]


def test_nobody_is_banned_where_no_worker_can_be_told(shell: Shell) -> None:
    """Else the list would say for an hour what no worker knows."""
    (shell.folder / "keys.txt").write_text(f"{A}\n{C}\n")
    shell.done("keys", "import", "keys.txt")
    ended, _ = asyncio.run(asked_about_keys(shell))
    assert ended.status == 1
    *failed, summary = ended.out.splitlines()
    assert [line.partition(" ")[2] for line in failed] == ["fk-c...cccc http_402, active"]
    assert summary == "1 good, 1 not"
    assert "1 to be banned are not, since no worker could be told: redis.url is not set, and no relaygate serve" in (
        ended.error
    )
    assert [row[3] for row in table(shell)] == ["active", "active"]


def test_keys_are_tested_and_those_that_do_not_pass_are_named(shell: Shell) -> None:
    (shell.folder / "keys.txt").write_text(f"{A}\n{B}\n{C}\n")
    shell.done("keys", "import", "keys.txt")
    with redis_at(EMBEDDED, shell.folder / "data" / "redis") as url:
        ended, upstream = asyncio.run(asked_about_keys(shell))
        banned = asyncio.run(bans(url))
    assert (ended.status, ended.error) == (1, "")
    *failed, summary = ended.out.splitlines()
    assert sorted(line.partition(" ")[2] for line in failed) == [
        "fk-b...bbbb http_401, disabled",
        "fk-c...cccc http_402, banned",
    ]
    assert summary == "1 good, 2 not"
    assert dict(upstream.asked) == {A: 1, B: 1, C: 1}
    assert [row[3] for row in table(shell)] == ["active", "disabled", "banned"]
    assert banned == [shell.done("keys", "list", "--status", "banned").splitlines()[1].split()[0]]
    first = shell.done("keys", "list", "--status", "active").splitlines()[1].split()[0]
    ended, upstream = asyncio.run(asked_about_keys(shell, first))
    assert (ended.status, ended.out) == (0, "1 good, 0 not\n")
    assert dict(upstream.asked) == {A: 1}
    assert refused(shell.run("keys", "test", "key_none"), 2).endswith("there is no key key_none\n")


def test_keys_under_another_secret_key_are_one_line_and_1(shell: Shell) -> None:
    (shell.folder / "keys.txt").write_text(f"{A}\n")
    shell.done("keys", "import", "keys.txt")
    (shell.folder / "data" / "secret.key").unlink()
    ended = shell.run("keys", "export")
    assert (ended.status, ended.out) == (1, "")
    assert refused(ended, 1).endswith("secret.key is the one that it was encrypted with\n")


def test_droid2apis_pool_is_taken_over_once(shell: Shell) -> None:
    (shell.folder / "key_pool.json").write_text(json.dumps(DOCUMENTED))
    words = ("import", "droid2api", "key_pool.json")
    dry = shell.run(*words, "--dry-run")
    assert dry.status == 1
    assert dry.out.endswith("+ up to 4 keys\n")
    assert not (shell.folder / "data").exists()
    ended = shell.run(*words)
    assert ended.status == 1
    assert ended.out == dry.out.replace("+ up to 4 keys\n", "added 4, there already 0\n")
    assert "+ pool group freebies priority 1\n" in ended.out
    assert '~ key_pool.algorithm "round-robin" -> "max-remaining"\n' in ended.out
    assert ended.error.splitlines()[-1].startswith("relaygate: not imported: entry 4: ")
    assert ended.error.replace(": : ", "") == ended.error
    assert [row[2:4] for row in table(shell)] == [
        ["freebies", "active"],
        ["default", "disabled"],
        ["default", "disabled"],
        ["default", "active"],
    ]
    again = shell.run(*words)
    assert again.out == "added 0, there already 4\n"


def test_what_is_no_key_pool_is_one_line_and_2(shell: Shell) -> None:
    (shell.folder / "other.json").write_text("{}")
    assert "found no list of `keys`" in refused(shell.run("import", "droid2api", "other.json"), 2)
