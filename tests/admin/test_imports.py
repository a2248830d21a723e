"""`relaygate import` as real processes, from a real Redis and a real file."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.processes import free_port
from proxy.config import Route
from tests.admin.rules.test_speedmimi import DOCUMENTED
from tests.admin.test_cli import Shell, refused
from tests.redis_servers import connected, server

KEY = "apiproxy:mappings"
A, B = Route(target="https://a.example"), Route(target="https://b.example/base")


@pytest.fixture(name="shell")
def fixture_shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.write({})
    return shell


@pytest.fixture(name="redis_url", scope="module")
def fixture_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}/3"


def keep(url: str, mappings: dict[str | bytes, str | bytes]) -> None:
    """Makes it the mappings of an apiproxy, and nothing else."""

    async def main() -> None:
        async with connected(url) as client:
            await client.flushall()
            if mappings:
                await client.hset(KEY, mapping=mappings)  # type: ignore[arg-type,misc,unused-ignore]

    asyncio.run(main())


def written(url: str) -> int:
    """How many writing commands the server has seen."""

    async def main() -> int:
        async with connected(url) as client:
            about: dict[str, dict[str, int]] = await client.info("commandstats")
            writing = ("hset", "set", "del", "config|set", "flushall", "hdel", "expire")
            return sum(about.get(f"cmdstat_{word}", {"calls": 0})["calls"] for word in writing)

    return asyncio.run(main())


def test_mappings_are_one_version_and_nothing_is_written_to_their_redis(shell: Shell, redis_url: str) -> None:
    keep(redis_url, {"/a": "https://a.example", "/b/": "HTTPS://B.example/base"})
    before = written(redis_url)
    words = ("import", "apiproxy", "--redis-url", redis_url)
    wanted = "+ /a https://a.example\n+ /b https://b.example/base\n"
    assert shell.done(*words, "--dry-run") == wanted
    assert not (shell.folder / "data").exists()
    assert shell.done(*words) == wanted
    assert shell.stored() == (1, {"/a": A, "/b": B})
    assert shell.done(*words) == "nothing changes\n"
    assert shell.done(*words, "--dry-run") == "nothing changes\n"
    assert written(redis_url) == before


def test_a_prefix_that_is_taken_is_kept_and_said_unless_it_is_to_be_replaced(shell: Shell, redis_url: str) -> None:
    keep(redis_url, {"/a": "https://a.example"})
    shell.write({"/a": {"target": "https://own.example", "head_timeout_s": 5}})
    shell.done("apply")
    words = ("import", "apiproxy", "--redis-url", redis_url)
    kept = "= /a https://own.example (kept; not https://a.example)\n"
    assert shell.done(*words) == shell.done(*words, "--dry-run") == kept
    assert shell.stored()[0] == 1
    replaced = "~ /a https://own.example -> https://a.example\n"
    assert shell.done(*words, "--replace", "--dry-run") == replaced
    assert shell.done(*words, "--replace") == replaced
    assert shell.stored() == (2, {"/a": Route(target="https://a.example", head_timeout_s=5.0)})


def test_what_cannot_be_used_is_named_and_the_rest_is_imported_with_status_1(shell: Shell, redis_url: str) -> None:
    unusable: dict[str | bytes, str | bytes] = {
        "no-slash": "https://x.example",
        "/sp ace": "https://x.example",
        "/ftp": "ftp://x.example",
        "/query": "https://x.example?a=b",
        "/private": "http://127.0.0.1:9",
        "/a/": "https://other.example",
        b"/\xff": "https://x.example",
        "/bytes": b"\xff",
    }
    keep(redis_url, {"/a": "https://a.example", **unusable})
    ended = shell.run("import", "apiproxy", "--redis-url", redis_url)
    assert (ended.status, ended.out) == (1, "+ /a https://a.example\n")
    lines = ended.error.splitlines()
    assert len(lines) == len(unusable)
    assert all(line.startswith("relaygate: not imported: ") for line in lines)
    for part in ("no-slash", "'/ftp", "/query", "/private", "the same prefix as /a", "b'/bytes'", "xff", "public host"):
        assert part.strip("'") in ended.error
    assert shell.stored() == (1, {"/a": A})
    allowed = shell.run("import", "apiproxy", "--redis-url", redis_url, RELAYGATE_ALLOW_PRIVATE_TARGETS="true")
    assert allowed.out == "+ /private http://127.0.0.1:9\n"


def test_no_mappings_are_an_error_that_names_the_key(shell: Shell, redis_url: str) -> None:
    keep(redis_url, {})
    assert KEY in refused(shell.run("import", "apiproxy", "--redis-url", redis_url), 2)
    assert not (shell.folder / "data").exists()


def test_a_redis_that_cannot_be_read_is_one_line(shell: Shell, redis_url: str) -> None:
    gone = f"redis://:5ecret@127.0.0.1:{free_port()}"
    said = refused(shell.run("import", "apiproxy", "--redis-url", gone), 2)
    assert said == f"relaygate: redis: {KEY} cannot be read: connection\n"
    assert "redis: url: " in refused(shell.run("import", "apiproxy", "--redis-url", "http://x"), 2)

    async def other_type() -> None:
        async with connected(redis_url) as client:
            await client.flushall()
            await client.set(KEY, "text")

    asyncio.run(other_type())
    assert "WRONGTYPE" in refused(shell.run("import", "apiproxy", "--redis-url", redis_url), 2)


def test_speedmimis_file_is_routes_settings_and_what_is_ignored(shell: Shell) -> None:
    (shell.folder / "config.yaml").write_text(DOCUMENTED)
    private = {"RELAYGATE_ALLOW_PRIVATE_TARGETS": "true"}
    ended = shell.run("import", "speedmimi", "config.yaml", "--dry-run", **private)
    assert ended.status == 0
    assert not (shell.folder / "data").exists()
    again = shell.run("import", "speedmimi", "config.yaml", **private)
    assert (again.status, again.out, again.error) == (0, ended.out, ended.error)
    assert again.out == (
        "+ / http://127.0.0.1:8081\n\n# for relaygate.yaml:\nserver:\n  host: 0.0.0.0\n  port: 8080\n"
        "  max_connections: 10000\n  header_timeout_s: 30.0\n  body_timeout_s: 30.0\n"
    )
    lines = again.error.splitlines()
    assert lines[0] == "relaygate: config.yaml:6: server.write_timeout: ignored, it has no counterpart"
    assert len(lines) == 14
    assert shell.stored() == (1, {"/": Route(target="http://127.0.0.1:8081")})
    assert shell.run("import", "speedmimi", "config.yaml").status == 1, "the target is private"


def test_the_settings_that_are_printed_are_settings(shell: Shell) -> None:
    (shell.folder / "config.yaml").write_text(DOCUMENTED)
    out = shell.run("import", "speedmimi", "config.yaml", "--dry-run").out
    (shell.folder / "relaygate.yaml").write_text(out.partition("# for relaygate.yaml:\n")[2])
    assert shell.done("check").startswith("listen: http://0.0.0.0:8080\n")


def test_a_file_that_cannot_be_read_is_one_line_and_2(shell: Shell) -> None:
    assert refused(shell.run("import", "speedmimi", "none.yaml"), 2) == (
        "relaygate: none.yaml: No such file or directory\n"
    )
    (shell.folder / "bytes.yaml").write_bytes(b"\xff")
    assert "not UTF-8 text" in refused(shell.run("import", "speedmimi", "bytes.yaml"), 2)
    (shell.folder / "broken.yaml").write_text("server: [")
    assert "not valid YAML" in refused(shell.run("import", "speedmimi", "broken.yaml"), 2)


@pytest.mark.parametrize("words", [["import"], ["import", "other"], ["import", "apiproxy"], ["import", "speedmimi"]])
def test_an_import_says_what_it_needs(shell: Shell, words: list[str]) -> None:
    assert "command line: " in refused(shell.run(*words), 2)
