"""What the proxies are put in front of: one nginx for short answers and downloads, one program for streams and uploads.

All serve on 127.0.0.1. The https side has a certificate of an authority made for the run, and a second port has one of
an authority that no proxy was told of: a proxy that answers 200 from there does not verify.
"""

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from loadtests.processes import Launch, Running, free_port, running

REPOSITORY = Path(__file__).resolve().parents[1]
HOST_NAME = "localhost"
MIB = 1 << 20
BACKENDS = 3

# 400 bytes, the size of a short chat completion without its text.
ANSWER_BYTES = 400
ANSWER = (
    b'{"id":"chatcmpl-BenchmarkBenchmark0000","object":"chat.completion","created":1790000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    b"%b"
    b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}'
)
ANSWER = ANSWER % (b"x" * (ANSWER_BYTES - len(ANSWER) + 2))

SAMPLE_FILE = "/sample.bin"
SAMPLE_BYTES = MIB
BIG_FILE = "/big.bin"

NGINX_UPSTREAM = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/upstream.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/json;
    sendfile on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/upstream_body;
    proxy_temp_path {directory}/upstream_proxy;
    fastcgi_temp_path {directory}/upstream_fastcgi;
    uwsgi_temp_path {directory}/upstream_uwsgi;
    scgi_temp_path {directory}/upstream_scgi;
    # One protocol and one cipher, so that every proxy pays for the same cryptography.
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_session_cache shared:sessions:10m;
    server {{
        listen 127.0.0.1:{http_port} backlog=4096;
        {group_listens}
        listen 127.0.0.1:{https_port} ssl backlog=4096;
        ssl_certificate {directory}/known.pem;
        ssl_certificate_key {directory}/known.key;
        location / {{ return 200 '{answer}'; }}
        location = /status {{ stub_status; }}
        location ~ [.]bin$ {{ root {directory}/files; }}
    }}
    server {{
        listen 127.0.0.1:{stranger_port} ssl;
        ssl_certificate {directory}/stranger.pem;
        ssl_certificate_key {directory}/stranger.key;
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""


@dataclass(frozen=True)
class Origin:
    """Where a proxy sends its requests. An https origin is to be verified against `authority` (PEM)."""

    scheme: str
    port: int
    authority: Path


@dataclass(frozen=True)
class Upstreams:
    """The origins of a run, and the directory that holds its files. `group` is the http origin on ports of its own, as
    backends of one upstream: they cost what the origin alone does.
    """

    http: Origin
    https: Origin
    stranger: Origin
    streaming: Origin
    group: tuple[int, ...]
    directory: Path
    sample: bytes
    big_file: Path


@contextlib.contextmanager
def upstreams(directory: Path, big_file_bytes: int) -> Iterator[Upstreams]:
    """Write certificates, files and configuration into `directory`, start both upstreams, end them on leaving."""
    authority = write_certificates(directory)
    sample = write_files(directory / "files", big_file_bytes)
    origins = {
        name: Origin(scheme, free_port(), authority)
        for name, scheme in (("http", "http"), ("https", "https"), ("stranger", "https"), ("streaming", "http"))
    }
    group = tuple(free_port() for _ in range(BACKENDS))
    configuration = directory / "upstream.conf"
    configuration.write_text(
        NGINX_UPSTREAM.format(
            user=nginx_user(),
            directory=directory,
            answer=ANSWER.decode(),
            http_port=origins["http"].port,
            group_listens=" ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in group),
            https_port=origins["https"].port,
            stranger_port=origins["stranger"].port,
        )
    )
    nginx = Launch(["nginx", "-e", "stderr", "-c", str(configuration)], origins["http"].port)
    port = origins["streaming"].port
    streaming = Launch([sys.executable, "-m", "loadtests.streaming_upstream", str(port)], port, directory=REPOSITORY)
    with start(nginx, directory, "upstream"), start(streaming, directory, "streaming_upstream"):
        yield Upstreams(
            **origins, group=group, directory=directory, sample=sample, big_file=directory / "files" / BIG_FILE[1:]
        )


def start(launch: Launch, directory: Path, name: str) -> contextlib.AbstractContextManager[Running]:
    return running(launch, directory / f"{name}.log")


def nginx_user() -> str:
    """As root, nginx would give its worker to an account that cannot read the run's directory."""
    return "user root;" if os.geteuid() == 0 else ""


def write_certificates(directory: Path) -> Path:
    """A server certificate of the run's authority and one of a stranger; the path of the authority's own."""
    for name in ("known", "stranger"):
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST_NAME, "127.0.0.1")
        authority.cert_pem.write_to_path(str(directory / f"{name}_authority.pem"))
        certificate.private_key_pem.write_to_path(str(directory / f"{name}.key"))
        for index, part in enumerate(certificate.cert_chain_pems):
            part.write_to_path(str(directory / f"{name}.pem"), append=index > 0)
    return directory / "known_authority.pem"


def write_files(directory: Path, big_file_bytes: int) -> bytes:
    """A small file of noise, to compare byte for byte, and a big sparse one, to be counted; the small one's content."""
    directory.mkdir()
    sample = random.Random(1).randbytes(SAMPLE_BYTES)
    (directory / SAMPLE_FILE[1:]).write_bytes(sample)
    with (directory / BIG_FILE[1:]).open("wb") as big:
        big.truncate(big_file_bytes)
    return sample
