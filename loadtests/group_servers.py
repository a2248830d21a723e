"""How the rivals are put in front of three backends: least connections, health checks, retries on another backend.

Each checks its backends as often as relaygate does, gives one a second to answer, and sends a request that has no
answer to another backend. What a rival has no word for, it goes without: the nginx of the community checks nothing by
itself and leaves a backend alone after failures of requests only, and neither it nor Caddy is told of the other's
retries.
"""

from dataclasses import dataclass
from pathlib import Path

from loadtests.processes import Launch
from loadtests.upstreams import nginx_user

HEALTH_PATH = "/health"
CHECK_INTERVAL_S = 0.5
CHECK_FAILURES = 2
ANSWER_S = 1
"""How long a backend has to take a connection, and to answer."""
RETRIES = 2
EJECTED_AFTER = 3
EJECTED_S = 1


@dataclass(frozen=True)
class GroupJob:
    """One configuration to write: listen on `port`, relay to backends on these ports of 127.0.0.1."""

    backends: tuple[int, ...]
    port: int
    directory: Path


def backend_names(job: GroupJob) -> dict[str, int]:
    """A name for each backend, and its port."""
    return {f"backend-{number}": port for number, port in enumerate(job.backends)}


NGINX = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
error_log stderr crit;
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
    upstream backends {{
        least_conn;
        {backends}
        keepalive 4096;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://backends;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout {answer_s}s;
            proxy_read_timeout {answer_s}s;
            # Of requests that were sent, only those with an idempotent method.
            proxy_next_upstream error timeout http_503;
            proxy_next_upstream_tries {tries};
        }}
    }}
}}
"""


def nginx_group(job: GroupJob) -> Launch:
    lines = [f"server 127.0.0.1:{port} max_fails={EJECTED_AFTER} fail_timeout={EJECTED_S}s;" for port in job.backends]
    configuration = job.directory / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            user=nginx_user(),
            directory=job.directory,
            backends="\n        ".join(lines),
            port=job.port,
            answer_s=ANSWER_S,
            tries=1 + RETRIES,
        )
    )
    return Launch(["nginx", "-e", "stderr", "-c", str(configuration)], job.port)


HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect {answer_s}s
    timeout client 1h
    timeout server {answer_s}s
    timeout check {interval_ms}ms
    timeout http-keep-alive 1h
    option http-keep-alive
    http-reuse always
    retries {retries}
    retry-on conn-failure empty-response 503 response-timeout
    # At each retry. Without a number it is the last one only, and those before wait for a second.
    option redispatch 1
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend backends
backend backends
    balance leastconn
    http-request disable-l7-retry if METH_POST
    option httpchk GET {health_path}
    default-server check inter {interval_ms}ms fall {failures} rise 1
    default-server pool-max-conn -1 pool-low-conn 4096 pool-purge-delay 1h
    {backends}
"""


def haproxy_group(job: GroupJob) -> Launch:
    lines = [f"server {name} 127.0.0.1:{port}" for name, port in backend_names(job).items()]
    configuration = job.directory / "haproxy.cfg"
    configuration.write_text(
        HAPROXY.format(
            answer_s=ANSWER_S,
            interval_ms=round(1000 * CHECK_INTERVAL_S),
            retries=RETRIES,
            port=job.port,
            health_path=HEALTH_PATH,
            failures=CHECK_FAILURES,
            backends="\n    ".join(lines),
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
    reverse_proxy {backends} {{
        lb_policy least_conn
        lb_try_duration {try_s}s
        lb_try_interval 10ms
        health_uri {health_path}
        health_interval {interval_ms}ms
        health_timeout {interval_ms}ms
        max_fails {ejected_after}
        fail_duration {ejected_s}s
        unhealthy_status 503
        transport http {{
            versions 1.1
            compression off
            dial_timeout {answer_s}s
            response_header_timeout {answer_s}s
            keepalive 1h
            keepalive_idle_conns 4096
            keepalive_idle_conns_per_host 4096
        }}
    }}
}}
"""


def caddy_group(job: GroupJob) -> Launch:
    configuration = job.directory / "Caddyfile"
    configuration.write_text(
        CADDY.format(
            port=job.port,
            backends=" ".join(f"http://127.0.0.1:{port}" for port in job.backends),
            try_s=(1 + RETRIES) * ANSWER_S,
            health_path=HEALTH_PATH,
            interval_ms=round(1000 * CHECK_INTERVAL_S),
            ejected_after=EJECTED_AFTER,
            ejected_s=EJECTED_S,
            answer_s=ANSWER_S,
        )
    )
    # Caddy writes its state under these; the last one is its "one worker".
    home = str(job.directory)
    environment = {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home, "GOMAXPROCS": "1"}
    command = ["caddy", "run", "--config", str(configuration), "--adapter", "caddyfile"]
    return Launch(command, job.port, environment)


RELAYGATE_GROUP = "group"
RELAYGATE_LIMITS = {"head_timeout_s": ANSWER_S, "connect_timeout_s": ANSWER_S}


def relaygate_upstreams(backends: tuple[int, ...]) -> dict[str, object]:
    """The same for relaygate: its `upstreams`, with one of these backends."""
    group = {
        "balancer": "least_connections_weight",
        "health_check": {
            "path": HEALTH_PATH,
            "interval_s": CHECK_INTERVAL_S,
            "timeout_s": CHECK_INTERVAL_S,
            "failures": CHECK_FAILURES,
        },
        "ejection": {"failures": EJECTED_AFTER, "ejection_s": EJECTED_S},
        "retry_max": RETRIES,
        "backends": [
            {"id": f"backend-{number}", "url": f"http://127.0.0.1:{port}"} for number, port in enumerate(backends)
        ],
    }
    return {RELAYGATE_GROUP: group}


def relaygate_settings(backends: tuple[int, ...]) -> dict[str, object]:
    """And with `routes`, which lead everything there."""
    route = {"upstream": RELAYGATE_GROUP, **RELAYGATE_LIMITS}
    return {"upstreams": relaygate_upstreams(backends), "routes": {"/": route}}
