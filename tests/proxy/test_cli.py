"""The command itself, as a process: what it prints, where, and its exit status."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import cli
from proxy.config import Config, Forwarded, ListenerTls, Route, Server, UpstreamTls
from proxy.version import VERSION

ROOT = Path(__file__).parents[2]


def relaygate(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version(tmp_path: Path) -> None:
    done = relaygate(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"relaygate {VERSION}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["proxy", "--help"], ["check", "--help"]])
def test_help(tmp_path: Path, arguments: list[str]) -> None:
    done = relaygate(tmp_path, *arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: relaygate")
    if len(arguments) == 2:
        assert all(f"--{name.replace('_', '-')}" in done.stdout for name in cli.OPTIONS)


def test_check_prints_the_default_prefixes(tmp_path: Path) -> None:
    done = relaygate(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^/groq +https://api\.groq\.com/openai$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("\n18 routes ok\n")


def test_check_tells_of_pool_groups_that_the_settings_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text(
        "routes:\n  /a: {target: 'https://a.example', credential: pool, pool_groups: [main, default, spare]}\n"
        "key_pool: {groups: {main: {}}}\n"
    )
    done = relaygate(tmp_path, "check")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2:] == [
        "/a: pool group spare is not in key_pool.groups; until it is made elsewhere, it has no keys",
        "1 route ok",
    ]


def test_check_prints_an_aligned_table(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        """
server: {host: "::1", port: 9000, allow_private_targets: true}
routes:
  /openai/: https://API.openai.com
  /local: {target: "http://127.0.0.1:9001/base", connect_timeout_s: 5, forwarded: append, preserve_host: true}
  /: {target: "https://a", connect_timeout_s: null, tls: {verify: false}}
"""
    )
    done = relaygate(tmp_path, "check", "--config", "r.yaml", "--port", "9002")
    assert done.returncode == 0
    assert done.stdout == (
        "listen: http://[::1]:9002\n"
        "PREFIX   TARGET                      OPTIONS\n"
        "/        https://a                   connect_timeout_s=null tls.verify=false\n"
        "/local   http://127.0.0.1:9001/base  connect_timeout_s=5.0 preserve_host=true forwarded=append\n"
        "/openai  https://api.openai.com\n"
        "3 routes ok\n"
    )


def test_check_warns_of_a_route_whose_key_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("routes: {/a: {target: https://a, credential: fixed}}")
    done = relaygate(tmp_path, "check")
    said = (
        "relaygate: warning: credentials.api_key is not set: requests of /a (credential: fixed) are answered with 503\n"
    )
    assert (done.returncode, done.stderr) == (0, said)
    assert done.stdout.endswith("\n1 route ok\n")
    (tmp_path / ".env").write_text("FACTORY_API_KEY=k")
    assert relaygate(tmp_path, "check").stderr == ""


def test_one_route_is_no_routes(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("routes: {/a: http://a}")
    assert relaygate(tmp_path, "check").stdout.endswith("\n1 route ok\n")


@pytest.mark.parametrize("command", ["check", "proxy"])
@pytest.mark.parametrize(
    ("yaml", "arguments", "message"),
    [
        ("server: {port: http}", [], "r.yaml:1: server.port: found 'http', expected an integer from 1 to 65535"),
        ("routes:\n  /a:\n    targt: b", [], "r.yaml:3: routes./a.targt: unknown key, the nearest known one is target"),
        ("a: [", [], "r.yaml:2: not valid YAML: did not find expected node content"),
        (
            "routes:\n  /a: http://127.0.0.1:9001",
            [],
            "r.yaml:2: routes./a.target: found 'http://127.0.0.1:9001', expected a public host, this one is loopback "
            "(server.allow_private_targets: true or RELAYGATE_ALLOW_PRIVATE_TARGETS=true allows it)",
        ),
        ("", ["--port", "0"], "command line: --port: found '0', expected an integer from 1 to 65535"),
        ("", ["--prot", "1"], "command line: unrecognized arguments: --prot 1 (see relaygate --help)"),
        ("", ["--po", "1"], "command line: unrecognized arguments: --po 1 (see relaygate --help)"),
        ("", ["--port"], "command line: argument --port: expected one argument (see relaygate {} --help)"),
        ("tls: {certificate: /none, key: /none}", [], "r.yaml:1: tls.certificate: /none: No such file or directory"),
    ],
)
def test_a_refusal_is_one_line_and_status_2(
    tmp_path: Path, command: str, yaml: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "r.yaml").write_text(yaml)
    done = relaygate(tmp_path, command, "--config", "r.yaml", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"relaygate: {message.format(command)}\n"


def test_no_command_and_an_unknown_one(tmp_path: Path) -> None:
    for arguments in ([], ["poxy"]):
        done = relaygate(tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("relaygate: command line: ")


def test_the_environment_reaches_the_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=0.0.0.0\n")
    assert relaygate(tmp_path, "check", PORT="9002").stdout.startswith("listen: http://0.0.0.0:9002\n")


def test_report_of_a_relay_with_tls_and_no_route() -> None:
    report = cli.report(Config(server=Server(port=8443), tls=ListenerTls(certificate="c", key="k")))
    assert report == "listen: https://127.0.0.1:8443\nPREFIX  TARGET  OPTIONS\n0 routes ok\n"


def test_notable_names_only_what_differs() -> None:
    assert cli.notable(Route()) == ""
    route = Route(forwarded=Forwarded.OFF, via="relaygate", tls=UpstreamTls(ca="/ca.pem"))
    assert cli.notable(route) == "via='relaygate' tls.ca='/ca.pem'"


def test_a_route_is_told_by_where_it_leads() -> None:
    assert cli.target_and_options(Route(target="https://a", via="x")) == ("https://a", "via='x'")
    assert cli.target_and_options(Route(upstream="main", base="/v1")) == ("upstream main/v1", "")


def test_figures_of_all_workers_need_a_redis(tmp_path: Path) -> None:
    done = relaygate(tmp_path, "proxy", RELAYGATE_STATS_PATH="/stats")
    assert (done.returncode, done.stderr) == (
        2,
        "relaygate: server.stats_path: its figures come through Redis, expected redis.url or `relaygate serve`\n",
    )


def test_access_tokens_need_a_redis_or_a_key(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("routes: {/a: {target: http://a.example, access: token}}")
    done = relaygate(tmp_path, "proxy")
    assert (done.returncode, done.stderr) == (
        2,
        "relaygate: routes./a.access: tokens are checked in Redis, expected redis.url, access.api_key or "
        "`relaygate serve`\n",
    )


def test_what_does_not_serve_does_without_the_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, proxy.cli; print('granian' in sys.modules)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
