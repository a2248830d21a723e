"""How each proxy is configured and started: one worker each, kept-alive upstream connections, verified certificates.

Each is set up as its own manual advises for this traffic, since a rival held back makes the ratio worthless. What
differs between short requests and streams is only what a user of that proxy would have to write for streams to flow at
all.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from importlib.metadata import version
from pathlib import Path

from loadtests.group_servers import GroupJob, caddy_group, haproxy_group, nginx_group, relaygate_settings
from loadtests.processes import Launch
from loadtests.upstreams import HOST_NAME, REPOSITORY, Origin, nginx_user

CONNECTIONS_MAX = 8192


class Traffic(Enum):
    """What a configuration is tuned for: short requests and answers, or bodies that must flow as they come."""

    REQUESTS = auto()
    STREAMS = auto()


@dataclass(frozen=True)
class Job:
    """One configuration to write: listen on `port`, relay to `origin`, keep files in `directory`."""

    origin: Origin
    traffic: Traffic
    port: int
    directory: Path


@dataclass(frozen=True)
class Server:
    """A proxy that can be compared. `missing` says why it cannot run here, None when it can. `launch_group` is None
    where it has no upstreams of several backends.
    """

    name: str
    launch: Callable[[Job], Launch]
    version: Callable[[], str]
    missing: Callable[[], str | None]
    launch_group: Callable[[GroupJob], Launch] | None = None


def program_missing(program: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(program) else f"no `{program}` in PATH"


def program_version(*command: str) -> Callable[[], str]:
    """The first thing that looks like a version in what the command prints."""

    def read() -> str:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        found = re.search(r"\d+\.\d+[.\w+~-]*", printed.stdout + printed.stderr)
        return found.group() if found else "unknown"

    return read


# Not in the file, where a checkout from before it would refuse it.
RELAYGATE_ENVIRONMENT = {"RELAYGATE_ALLOW_PRIVATE_TARGETS": "true"}
RELAYGATE_ROUTE_LIMITS = {"max_connections": CONNECTIONS_MAX, "connect_timeout_s": 10}


def relaygate(checkout: Path) -> Callable[[Job], Launch]:
    """Relaygate as it stands in a directory, with one route for everything."""

    def launch(job: Job) -> Launch:
        route: dict[str, object] = {"target": f"{job.origin.scheme}://127.0.0.1:{job.origin.port}"}
        route |= RELAYGATE_ROUTE_LIMITS
        if job.origin.scheme == "https":
            route["tls"] = {"ca": str(job.origin.authority)}
        return relaygate_launch("proxy", job.port, job.directory, {"routes": {"/": route}}, checkout)

    return launch


def relaygate_group(checkout: Path) -> Callable[[GroupJob], Launch]:
    """Relaygate as it stands in a directory, with one route for everything, to backends that its workers watch alone:
    there is no control plane that would check them.
    """
    return lambda job: relaygate_launch("proxy", job.port, job.directory, relaygate_settings(job.backends), checkout)


def relaygate_launch(
    word: str, port: int, directory: Path, settings: Mapping[str, object], checkout: Path = REPOSITORY, workers: int = 1
) -> Launch:
    """`relaygate proxy` or `relaygate serve`; its YAML is written as JSON, which YAML contains."""
    server = {"host": "127.0.0.1", "port": port, "workers": workers, "max_connections": CONNECTIONS_MAX}
    configuration = directory / "relaygate.yaml"
    configuration.write_text(json.dumps({"server": server, **settings}))
    package = "proxy" if word == "proxy" else "admin"
    command = [sys.executable, "-m", package, word, "--config", str(configuration)]
    return Launch(command, port, RELAYGATE_ENVIRONMENT, checkout)


def naive(job: Job) -> Launch:
    environment = {"TARGET": f"{job.origin.scheme}://127.0.0.1:{job.origin.port}"}
    if job.origin.scheme == "https":
        environment["TARGET_CA"] = str(job.origin.authority)
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--no-ws", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(job.port)]
    command += ["--backlog", str(CONNECTIONS_MAX), "--backpressure", str(CONNECTIONS_MAX)]
    command += ["loadtests.naive_proxy:app"]
    return Launch(command, job.port, environment, REPOSITORY)


NGINX = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/nginx_body;
    proxy_temp_path {directory}/nginx_proxy;
    fastcgi_temp_path {directory}/nginx_fastcgi;
    uwsgi_temp_path {directory}/nginx_uwsgi;
    scgi_temp_path {directory}/nginx_scgi;
    upstream origin {{
        server 127.0.0.1:{origin_port};
        keepalive 4096;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass {scheme}://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
            {traffic}
            {tls}
        }}
    }}
}}
"""
NGINX_TRAFFIC = {
    Traffic.REQUESTS: "",
    # Unbuffered, nginx moves bodies through one buffer. On downloads 64 KB took less CPU a MiB than 16 or 32 KB did
    # (790 µs against 1,250 and 950), and no more than buffering.
    Traffic.STREAMS: (
        "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; "
        "proxy_request_buffering off; client_body_buffer_size 64k;"
    ),
}
# TLS 1.3 is not among the defaults of nginx 1.22; it checks names, not addresses, so it is given one.
NGINX_TLS = """
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {authority};
            proxy_ssl_name {host_name};
            proxy_ssl_server_name on;
            proxy_ssl_session_reuse on;
"""


def nginx(job: Job) -> Launch:
    tls = NGINX_TLS.format(authority=job.origin.authority, host_name=HOST_NAME) if job.origin.scheme == "https" else ""
    configuration = job.directory / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            user=nginx_user(),
            directory=job.directory,
            origin_port=job.origin.port,
            port=job.port,
            scheme=job.origin.scheme,
            traffic=NGINX_TRAFFIC[job.traffic],
            tls=tls,
        )
    )
    return Launch(["nginx", "-e", "stderr", "-c", str(configuration)], job.port)


HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    option http-keep-alive
    http-reuse always
    {traffic}
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin_port} pool-max-conn -1 pool-low-conn 4096 pool-purge-delay 1h {tls}
"""
HAPROXY_TRAFFIC = {
    Traffic.REQUESTS: "",
    # Without it, an event may wait for a following one. What `option splice-auto` changed for long bodies was less
    # than what changed between rounds.
    Traffic.STREAMS: "option http-no-delay",
}


def haproxy(job: Job) -> Launch:
    tls = (
        f"ssl verify required ca-file {job.origin.authority} sni str({HOST_NAME}) verifyhost {HOST_NAME} alpn http/1.1"
    )
    configuration = job.directory / "haproxy.cfg"
    configuration.write_text(
        HAPROXY.format(
            port=job.port,
            origin_port=job.origin.port,
            traffic=HAPROXY_TRAFFIC[job.traffic],
            tls=tls if job.origin.scheme == "https" else "",
        )
    )
    return Launch(["haproxy", "-db", "-f", str(configuration)], job.port)


CADDY = """
{{
    admin off
    auto_https off
    servers {{
        protocols h1
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {scheme}://127.0.0.1:{origin_port} {{
        {traffic}
        transport http {{
            versions 1.1
            compression off
            keepalive 1h
            keepalive_idle_conns 4096
            keepalive_idle_conns_per_host 4096
            {tls}
        }}
    }}
}}
"""
CADDY_TRAFFIC = {Traffic.REQUESTS: "", Traffic.STREAMS: "flush_interval -1"}
CADDY_TLS = """
            tls_trusted_ca_certs {authority}
            tls_server_name {host_name}
"""


def caddy(job: Job) -> Launch:
    configuration = job.directory / "Caddyfile"
    tls = CADDY_TLS.format(authority=job.origin.authority, host_name=HOST_NAME) if job.origin.scheme == "https" else ""
    configuration.write_text(
        CADDY.format(
            port=job.port,
            scheme=job.origin.scheme,
            origin_port=job.origin.port,
            traffic=CADDY_TRAFFIC[job.traffic],
            tls=tls,
        )
    )
    # Caddy writes its state under these; the last one is its "one worker".
    home = str(job.directory)
    environment = {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home, "GOMAXPROCS": "1"}
    command = ["caddy", "run", "--config", str(configuration), "--adapter", "caddyfile"]
    return Launch(command, job.port, environment)


def relaygate_server(name: str, checkout: Path) -> Server:
    def missing() -> str | None:
        return None if (checkout / "proxy" / "__main__.py").exists() else "no proxy/__main__.py in the checkout"

    return Server(
        name,
        relaygate(checkout),
        lambda: f"{commit(checkout)}, granian {version('granian')}",
        missing,
        relaygate_group(checkout),
    )


def commit(checkout: Path) -> str:
    """The commit of a checkout, with a + where files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--exclude=*"]
    described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return described.stdout.strip() or "no commit"


def naive_version() -> str:
    return f"granian {version('granian')}, aiohttp {version('aiohttp')}, uvloop {version('uvloop')}"


SERVERS: Mapping[str, Server] = {
    server.name: server
    for server in (
        relaygate_server("relaygate", REPOSITORY),
        Server("nginx", nginx, program_version("nginx", "-v"), program_missing("nginx"), nginx_group),
        Server("haproxy", haproxy, program_version("haproxy", "-v"), program_missing("haproxy"), haproxy_group),
        Server("caddy", caddy, program_version("caddy", "version"), program_missing("caddy"), caddy_group),
        Server("naive", naive, naive_version, lambda: None),
    )
}


def machine() -> str:
    """The machine in one line, without its name."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    python = f"Python {platform.python_version()}"
    return f"Linux {platform.release()}, {os.cpu_count()} x {processor}, {memory_gib:.0f} GiB, {python}"
