"""Each proxy is told to verify, to keep alive, and to use one worker; each real configuration is accepted."""

import json
import subprocess
from pathlib import Path

import pytest
import trustme

from loadtests.servers import SERVERS, Job, Traffic, machine, relaygate_server
from loadtests.upstreams import Origin

# How each program checks a configuration, and the word that makes it verify certificates.
CHECKS = {
    "nginx": (["nginx", "-t", "-e", "stderr", "-c"], "nginx.conf", "proxy_ssl_verify on"),
    "haproxy": (["haproxy", "-c", "-f"], "haproxy.cfg", "verify required"),
    "caddy": (["caddy", "adapt", "--adapter", "caddyfile", "--config"], "Caddyfile", "tls_trusted_ca_certs"),
}


def job(directory: Path, scheme: str, traffic: Traffic = Traffic.REQUESTS) -> Job:
    authority = directory / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    return Job(Origin(scheme, 9001, authority), traffic, 8001, directory)


@pytest.mark.parametrize("traffic", Traffic)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", CHECKS)
def test_the_rivals_accept_their_configurations(name: str, scheme: str, traffic: Traffic, tmp_path: Path) -> None:
    command, file_name, verifying = CHECKS[name]
    SERVERS[name].launch(job(tmp_path, scheme, traffic))
    configuration = tmp_path / file_name
    assert (verifying in configuration.read_text()) == (scheme == "https")
    if SERVERS[name].missing():
        pytest.skip(f"{name} is not installed")
    ended = subprocess.run([*command, str(configuration)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_relaygate_gets_one_worker_and_the_authority(tmp_path: Path) -> None:
    launch = SERVERS["relaygate"].launch(job(tmp_path, "https"))
    configuration = json.loads(Path(launch.command[-1]).read_text())
    assert configuration["server"]["workers"] == 1
    assert configuration["server"]["port"] == launch.port == 8001
    assert configuration["routes"]["/"]["target"] == "https://127.0.0.1:9001"
    assert configuration["routes"]["/"]["tls"] == {"ca": str(tmp_path / "authority.pem")}


def test_the_naive_proxy_verifies_too(tmp_path: Path) -> None:
    assert SERVERS["naive"].launch(job(tmp_path, "https")).environment["TARGET_CA"] == str(tmp_path / "authority.pem")
    assert "TARGET_CA" not in SERVERS["naive"].launch(job(tmp_path, "http")).environment


def test_a_checkout_without_a_proxy_is_missing(tmp_path: Path) -> None:
    assert relaygate_server("before", tmp_path).missing() == "no proxy/__main__.py in the checkout"


def test_the_machine_is_described_without_its_name() -> None:
    assert machine().startswith("Linux ")
    assert Path("/etc/hostname").read_text().strip() not in machine().split()
