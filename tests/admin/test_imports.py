"""`relaygate import` as real processes, from a real Redis and a real file."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin.commands import export
from admin.imports import Imported, from_speedmimi
from admin.rules.additions import Existing
from loadtests.processes import free_port
from proxy.config import Config, Route
from tests.admin.rules.test_speedmimi import DOCUMENTED
from tests.admin.test_cli import Shell, refused
from tests.redis_servers import connected, server

KEY = "apiproxy:mappings"
PRIVATE = {"RELAYGATE_ALLOW_PRIVATE_TARGETS": "true"}
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


def test_speedmimis_file_is_upstreams_routes_and_settings(shell: Shell) -> None:
    (shell.folder / "config.yaml").write_text(DOCUMENTED)
    ended = shell.run("import", "speedmimi", "config.yaml", "--dry-run", **PRIVATE)
    assert ended.status == 0
    assert not (shell.folder / "data").exists()
    again = shell.run("import", "speedmimi", "config.yaml", **PRIVATE)
    assert (again.status, again.out, again.error) == (0, ended.out, ended.error)
    changes, _, settings = again.out.partition("\n# for relaygate.yaml:\n")
    assert changes == (
        "+ upstream default\n+ upstream default backend backend1 http://127.0.0.1:8081\n"
        "+ upstream default backend backend1 health_check {}\n"
        "+ upstream default backend backend1 name Backend Server 1\n+ / upstream default\n"
    )
    assert yaml.safe_load(settings).keys() == {"server", "grpc"}
    assert again.error == "relaygate: config.yaml:6: server.write_timeout: ignored, it has no counterpart\n"
    assert stored(shell) == {
        "upstreams": {
            "default": {
                "backends": [
                    {"id": "backend1", "url": "http://127.0.0.1:8081", "name": "Backend Server 1", "health_check": {}}
                ]
            }
        },
        "routes": {
            "/": {
                "upstream": "default",
                "balancer": "least_connections_weight",
                "protocols": {"websocket": "ip_hash", "sse": "ip_hash"},
            }
        },
    }


def stored(shell: Shell) -> Any:
    """What `relaygate export` prints, as values."""
    return yaml.safe_load(asyncio.run(export(Config(data_dir=str(shell.folder / "data")))))


def taken_over(shell: Shell, text: str, existing: Existing) -> Imported:
    """As `relaygate import speedmimi` of a file with such a text."""
    (shell.folder / "config.yaml").write_text(text)
    config = Config(data_dir=str(shell.folder / "data"))
    file = shell.folder / "config.yaml"
    dry = asyncio.run(from_speedmimi(config, file, existing, dry_run=True))
    done = asyncio.run(from_speedmimi(config, file, existing, dry_run=False))
    assert dry == done
    return done


def test_backends_of_private_addresses_are_refused_unless_they_are_allowed(shell: Shell) -> None:
    done = taken_over(shell, DOCUMENTED, Existing.KEEP)
    assert (done.status, done.text.splitlines()[0]) == (1, "nothing changes")
    file = shell.folder / "config.yaml"
    assert done.complaints == [
        f"not imported: {file}:22: backends.default.0.host: http://127.0.0.1:8081 is loopback, expected a public host",
        f"not imported: {file}:37: routing.default.upstream: the upstream default has no backend that can be used",
        f"{file}:6: server.write_timeout: ignored, it has no counterpart",
    ]


def test_what_can_be_used_of_an_upstream_is_imported_and_replaces_none(shell: Shell) -> None:
    text = """
backends: {up: [{host: 10.0.0.1}, {host: a.example, id: a}]}
routing: {x: {upstream: up, path: /healthz}}
"""
    done = taken_over(shell, text, Existing.KEEP)
    assert done.status == 1
    assert "10.0.0.1 is private" in done.complaints[0]
    assert "routes./healthz" in done.complaints[1]
    alone = {"up": {"backends": [{"id": "a", "url": "http://a.example"}]}}
    assert stored(shell) == {"upstreams": alone, "routes": {}}
    changed = taken_over(shell, text.replace("a.example", "b.example"), Existing.REPLACE)
    assert changed.text == "= upstream up (kept; it differs in backend a)\n"
    assert stored(shell)["upstreams"] == alone


def test_an_upstream_that_is_there_is_kept_unless_it_is_to_be_replaced(shell: Shell) -> None:
    text = """
backends: {up: [{host: own.example, scheme: https}]}
routing: {x: {upstream: up, load_balancer: ip_hash}}
"""
    first = taken_over(shell, text, Existing.KEEP)
    assert (first.complaints, first.status, shell.stored()[0]) == ([], 0, 1)
    text = text.replace("own", "a").replace("ip_hash", "weight")
    assert taken_over(shell, text, Existing.KEEP).text == (
        "= upstream up (kept; it differs in backend up-a.example-443, backend up-own.example-443)\n"
        "= / upstream up (kept; it differs in balancer)\n"
    )
    assert shell.stored()[0] == 1
    assert taken_over(shell, text, Existing.REPLACE).text == (
        "+ upstream up backend up-a.example-443 https://a.example\n"
        "- upstream up backend up-own.example-443 https://own.example\n~ / upstream up (balancer)\n"
    )
    assert shell.stored()[0] == 2, "upstreams and routes are one version"
    assert stored(shell) == {
        "upstreams": {"up": {"backends": [{"id": "up-a.example-443", "url": "https://a.example"}]}},
        "routes": {"/": {"upstream": "up", "balancer": "weight"}},
    }


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
