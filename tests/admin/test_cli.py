"""`relaygate apply|export|migrate` as real processes, on a database file of their own."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from sqlalchemy.engine import make_url

from admin.database import Database
from admin.services.edits import Editor
from admin.services.routes import Routes
from admin.services.versions import Versions
from loadtests.processes import free_port
from proxy.config import Route
from tests.sql_servers import empty_database, execute, with_database

REPOSITORY = Path(__file__).resolve().parents[2]


class Ended:
    def __init__(self, finished: subprocess.CompletedProcess[str]) -> None:
        self.status, self.out, self.error = finished.returncode, finished.stdout, finished.stderr


class Shell:
    """A working directory with a settings file, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'data' / 'relaygate.db'}"

    def write(self, routes: object, **more: object) -> None:
        (self.folder / "relaygate.yaml").write_text(yaml.safe_dump({"routes": routes, **more}))

    def run(self, *words: str, **environment: str) -> Ended:
        surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **environment}
        command = [sys.executable, "-m", "admin", *words]
        return Ended(
            subprocess.run(
                command, cwd=self.folder, env=surroundings, capture_output=True, text=True, timeout=30, check=False
            )
        )

    def done(self, *words: str, **environment: str) -> str:
        """What a command prints that ends well."""
        ended = self.run(*words, **environment)
        assert (ended.status, ended.error) == (0, "")
        return ended.out

    def edit(self, prefix: str, target: str) -> None:
        """As through the admin API."""

        async def story(database: Database) -> None:
            routes = Routes(Editor(database, lambda _: None, lambda: 1))
            route = Route(target=target)
            if await routes.get(prefix) is None:
                await routes.create(prefix, route, "token")
            else:
                await routes.update(prefix, lambda _: route, "token")

        with_database(self.url, story)

    def stored(self) -> tuple[int, dict[str, Route]]:
        """The newest version and the routes."""
        found: list[tuple[int, dict[str, Route]]] = []

        async def story(database: Database) -> None:
            editor = Editor(database, lambda _: None, lambda: 1)
            found.append((await Versions(editor).newest(), await Routes(editor).all()))

        with_database(self.url, story)
        return found[0]


@pytest.fixture(name="shell")
def fixture_shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def refused(ended: Ended, status: int) -> str:
    """The one line with which a command ended."""
    assert ended.status == status, ended.error
    assert ended.out == ""
    assert ended.error.startswith("relaygate: ")
    assert ended.error.count("\n") == 1, ended.error
    return ended.error


def test_apply_does_what_the_file_says_once_and_leaves_other_edits(shell: Shell) -> None:
    shell.write({"/a": "http://a.example", "/b": "http://b.example"})
    assert shell.done("apply") == "+ /a http://a.example\n+ /b http://b.example\n"
    assert shell.done("apply") == "nothing changes\n"
    shell.edit("/c", "http://c.example")
    shell.edit("/b", "http://edited.example")
    assert shell.done("apply") == "nothing changes\n"
    version, _ = shell.stored()
    shell.write({"/a": "http://a2.example", "/b": "http://b.example"})
    wanted = "~ /a http://a.example -> http://a2.example\n"
    assert shell.done("apply", "--dry-run") == wanted
    assert shell.stored()[0] == version
    assert shell.done("apply") == wanted
    assert shell.stored() == (
        version + 1,
        {
            "/a": Route(target="http://a2.example"),
            "/b": Route(target="http://edited.example"),
            "/c": Route(target="http://c.example"),
        },
    )


def test_a_dry_run_is_not_what_was_last_applied(shell: Shell) -> None:
    shell.write({"/a": "http://a.example"})
    for _ in range(2):
        assert shell.done("apply", "--dry-run") == "+ /a http://a.example\n"
    assert not (shell.folder / "data").exists()
    assert shell.done("apply") == "+ /a http://a.example\n"
    shell.write({})
    assert shell.done("apply", "--dry-run") == "- /a http://a.example\n"
    assert shell.done("apply") == "- /a http://a.example\n"


def test_an_export_is_a_file_that_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    routes = {
        "/": "http://root.example",
        "/a": {"target": "http://a.example", "forwarded": "append", "connect_timeout_s": None, "body_bytes_max": 0},
        "/b/c": {"target": "https://b.example/base", "tls": {"verify": False}, "idle_timeout_s": 0.5},
        "/null": "http://c.example",
    }
    shell.write(routes)
    shell.done("apply")
    exported = shell.done("export")
    assert yaml.safe_load(exported) == {"routes": routes}
    version, stored = shell.stored()
    (tmp_path / "relaygate.yaml").write_text(exported)
    assert shell.done("apply") == "nothing changes\n"
    assert shell.stored() == (version, stored)
    other = Shell(tmp_path / "other")
    other.folder.mkdir()
    (other.folder / "relaygate.yaml").write_text(exported)
    other.done("apply")
    assert other.stored()[1] == stored
    assert other.done("export") == exported


def test_upstreams_are_applied_and_exported_with_the_routes(shell: Shell, tmp_path: Path) -> None:
    backends = [{"url": "http://a.example", "id": "a", "weight": 50}, {"url": "https://b.example", "id": "b"}]
    upstreams = {
        "api": {"backends": backends, "balancer": "ip_hash", "protocols": {"sse": "weight"}, "tls": {"verify": False}},
        "empty": {},
    }
    routes = {"/a": {"upstream": "api", "base": "/v1"}}
    shell.write(routes, upstreams=upstreams)
    assert shell.done("apply").splitlines() == [
        "+ upstream api",
        "+ upstream api backend a http://a.example",
        "+ upstream api backend a weight 50",
        "+ upstream api backend b https://b.example",
        "+ upstream api balancer ip_hash",
        '+ upstream api protocols {"sse":"weight"}',
        '+ upstream api tls {"verify":false}',
        "+ upstream empty",
        "+ /a upstream api/v1",
    ]
    exported = shell.done("export")
    assert yaml.safe_load(exported) == {"upstreams": upstreams, "routes": routes}
    (tmp_path / "relaygate.yaml").write_text(exported)
    assert shell.done("apply", "--dry-run") == "nothing changes\n"


def test_no_routes_are_exported_as_none(shell: Shell) -> None:
    shell.write({})
    assert shell.done("apply") == "nothing changes\n"
    assert shell.done("export") == "routes: {}\n"


def test_migrate_tells_what_was_missing_once(shell: Shell) -> None:
    shell.write({})
    assert shell.done("migrate").startswith("applied ")
    assert shell.done("migrate") == ""


@pytest.mark.parametrize("command", [["apply"], ["admin"]])
def test_refused_settings_are_one_line_and_2_and_make_nothing(shell: Shell, command: list[str]) -> None:
    shell.write({"/a": 7})
    assert "relaygate.yaml:" in refused(shell.run(*command), 2)
    assert not (shell.folder / "data").exists()


def test_a_private_target_is_refused(shell: Shell) -> None:
    shell.write({"/a": "http://127.0.0.1"})
    assert "routes./a.target" in refused(shell.run("apply"), 2)


@pytest.mark.parametrize("command", [["apply"], ["admin"]])
def test_a_database_that_cannot_be_reached_is_one_line_and_1(shell: Shell, command: list[str]) -> None:
    shell.write({})
    url = f"postgresql://user:5ecret@127.0.0.1:{free_port()}/relaygate"
    said = refused(shell.run(*command, DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1"), 1)
    assert "database: postgresql at 127.0.0.1:" in said
    assert "5ecret" not in said


def test_a_database_that_refuses_is_one_line_and_1(shell: Shell) -> None:
    """What PostgreSQL's driver calls a mistake of the statement."""
    shell.write({})
    with empty_database("postgresql", shell.folder) as url:
        weak = f"relaygate_test_{uuid4().hex[:12]}"
        statements = [f"CREATE ROLE {weak} LOGIN PASSWORD 'weak'", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"]
        execute(url, *statements)
        try:
            as_weak = make_url(url).set(username=weak, password="weak").render_as_string(hide_password=False)
            said = refused(shell.run("apply", DATABASE_URL=as_weak), 1)
            assert said.endswith(": permission denied for schema public\n")
            nowhere = make_url(url).set(database="nowhere").render_as_string(hide_password=False)
            assert 'database "nowhere" does not exist' in refused(shell.run("apply", DATABASE_URL=nowhere), 1)
        finally:
            execute(url, f"DROP ROLE {weak}")


def test_a_database_that_is_not_there_is_one_line_without_numbers(shell: Shell) -> None:
    shell.write({})
    with empty_database("mariadb", shell.folder) as url:
        nowhere = make_url(url).set(database="nowhere").render_as_string(hide_password=False)
        said = refused(shell.run("apply", DATABASE_URL=nowhere), 1)
    assert said.endswith(": Unknown database 'nowhere'\n")


def test_a_file_that_is_no_database_is_one_line_and_1(shell: Shell) -> None:
    shell.write({})
    (shell.folder / "text.db").write_text("no database " * 100)
    assert "file is not a database" in refused(shell.run("export", DATABASE_URL="sqlite:///text.db"), 1)


@pytest.mark.parametrize("command", ["apply", "serve"])
def test_a_data_directory_that_cannot_be_made_is_one_line_and_2(shell: Shell, command: str) -> None:
    shell.write({}, data_dir="occupied")
    (shell.folder / "occupied").write_text("")
    assert "data_dir: " in refused(shell.run(command), 2)


def test_a_database_url_that_cannot_be_used_is_one_line_and_2(shell: Shell) -> None:
    shell.write({})
    assert "database.url" in refused(shell.run("export", DATABASE_URL="oracle://a/b"), 2)


def test_the_control_plane_alone_needs_a_redis(shell: Shell) -> None:
    shell.write({})
    assert "redis.url" in refused(shell.run("admin"), 2)


def test_dry_run_is_an_option_of_apply_only(shell: Shell) -> None:
    shell.write({})
    assert "--dry-run" in refused(shell.run("export", "--dry-run"), 2)


def test_the_data_plane_starts_without_the_control_planes_libraries() -> None:
    program = (
        "import sys, admin.cli; print([name for name in ('sqlalchemy', 'litestar', 'redis') if name in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "[]\n"
