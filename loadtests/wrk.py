"""wrk as the client of short requests: the script it runs, its command line, and its figures read back.

wrk is a closed loop: each connection sends its next request when the answer to the last one is complete, so p50 and p99
are of a busy proxy, and requests/s is what that many connections get.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REQUEST_PATH = "/v1/chat/completions"
REQUEST_BODY_BYTES = 283
REQUEST_BODY = (
    b'{"model":"gpt-4o-mini","temperature":0.2,"max_tokens":256,"messages":[{"role":"system","content":"You answer in '
    b'one sentence."},{"role":"user","content":"%b"}]}'
)
REQUEST_BODY = REQUEST_BODY % (b"w" * (REQUEST_BODY_BYTES - len(REQUEST_BODY) + 2))
REQUEST_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Authorization": "Bearer sk-benchmark-0123456789abcdef0123456789abcdef",
    "Content-Type": "application/json",
    "User-Agent": "relaygate-compare/1",
    "X-Client-Version": "1.0.0",
}
TIMEOUT_S = 10

SCRIPT = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nfigures {{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""

FAILURES = {
    "connect": "connections refused",
    "read": "read errors",
    "write": "write errors",
    "status": "answers with status 400 or above",
    "timeout": f"answers later than {TIMEOUT_S} s",
}


class WrkError(Exception):
    """wrk ended badly or printed no figures."""


@dataclass(frozen=True)
class WrkFigures:
    """`errors` holds a sentence for each kind that occurred."""

    requests: int
    duration_s: float
    p50_us: float
    p99_us: float
    errors: tuple[str, ...]


def write_script(directory: Path, headers: Mapping[str, str] = REQUEST_HEADERS) -> Path:
    fields = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    path = directory / "post.lua"
    path.write_text(SCRIPT.format(body=REQUEST_BODY.decode(), headers=fields))
    return path


def run_wrk(script: Path, port: int, connections: int, seconds: float, path: str = REQUEST_PATH) -> WrkFigures:
    """Load a proxy for `seconds` (whole ones, at least 1). Raises `WrkError`."""
    duration_s = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", f"--timeout={TIMEOUT_S}s", f"-s{script}"]
    command.append(f"http://127.0.0.1:{port}{path}")
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + 3 * TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise WrkError("wrk did not end") from error
    if ended.returncode:
        raise WrkError(f"wrk ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()}")
    return parse_figures(ended.stdout)


def parse_figures(output: str) -> WrkFigures:
    """The line that the script printed among wrk's own output. Raises `WrkError`."""
    for line in output.splitlines():
        word, _, figures = line.partition(" ")
        if word == "figures":
            raw = json.loads(figures)
            errors = tuple(f"{raw[key]} {text}" for key, text in FAILURES.items() if raw[key])
            return WrkFigures(raw["requests"], raw["duration_us"] / 1e6, raw["p50_us"], raw["p99_us"], errors)
    raise WrkError(f"wrk printed no figures: {output.strip()}")
