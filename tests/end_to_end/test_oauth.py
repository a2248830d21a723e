"""A route with an OAuth credential, whose access token is refused before its time."""

import json
import os
import time
from pathlib import Path

from loadtests.fake_provider import TOKEN_PATH, running
from tests.end_to_end.calls import HEADERS, OPENAI
from tests.end_to_end.key_pool import WORKERS, client_of_each_worker
from tests.end_to_end.relay_process import CANARY
from tests.end_to_end.system import serving
from tests.end_to_end.waiting import eventually

OLD = f"access-old-{CANARY}"
REFRESH = f"refresh-{CANARY}"
HOUR_S = 3600


def test_a_refused_access_token_is_replaced_within_seconds_on_all_workers(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    auth_file = tmp_path / "data" / "auth.json"
    tokens = {"refresh_token": REFRESH, "api_key": OLD, "expires_at": (time.time() + 8 * HOUR_S) * 1000}
    auth_file.write_text(json.dumps(tokens))
    os.utime(auth_file, times=(time.time() - HOUR_S,) * 2)
    with running() as provider:
        provider.plan(OLD)
        provider.refresh_tokens.add(REFRESH)
        settings = {
            "server": {"workers": WORKERS},
            "credentials": {"token_url": provider.url + TOKEN_PATH, "client_id": "client"},
            "routes": {"/api": {"target": provider.url, "dialect": "openai", "credential": "oauth"}},
        }
        body = json.dumps(OPENAI.document).encode()
        with serving(tmp_path, settings) as system, client_of_each_worker(system) as clients:

            def statuses() -> list[int]:
                target = "/api" + OPENAI.path
                return [client.request("POST", target, HEADERS, body).status for client in clients]

            eventually(lambda: statuses() == [200] * WORKERS, 20, what="the old access token")
            assert set(provider.uses()) == {OLD}
            provider.revoke(OLD)
            assert statuses() == [401] * WORKERS
            eventually(lambda: statuses() == [200] * WORKERS, 15, what="the new access token")
            assert len(provider.uses()) == 2
            assert json.loads(auth_file.read_text())["api_key"] != OLD
