"""Why a request went as it did: `GET /admin/explain/{request_id}`, whichever worker had it, and without a secret."""

import json
from typing import Any

from loadtests.fake_provider_keys import Behaviour, Does
from tests.end_to_end.calls import request_id
from tests.end_to_end.key_pool import Pool
from tests.end_to_end.relay_process import CANARY
from tests.end_to_end.waiting import eventually


def explained(pool: Pool, wanted: str) -> Any:
    answer = eventually(lambda: found(pool, wanted), what="the request's trace")
    assert CANARY not in json.dumps(answer)
    return answer["data"]


def found(pool: Pool, wanted: str) -> Any:
    answer = pool.system.admin("GET", f"/admin/explain/{wanted}")
    assert answer.status in (200, 404), answer
    return answer.body if answer.status == 200 else None


def test_the_attempts_of_a_request_are_told(pool: Pool) -> None:
    failing, good = pool.add(2)
    names = {key: pool.id_of(key) for key in (failing, good)}
    pool.plan([failing], Behaviour(Does.PAYMENT_REQUIRED))
    tried = eventually(lambda: tried_both(pool), what="a request that met the bad key")
    text = json.dumps(explained(pool, tried))
    assert names[failing] in text
    assert names[good] in text
    assert "402" in text
    assert "out_of_quota" in text
    assert f"/{pool.number}/openai" in text
    assert "gpt-fake" in text


def tried_both(pool: Pool) -> str:
    """The id of a request that had two attempts; empty where it had one."""
    told = pool.told()
    assert told.is_good
    both = len(pool.provider.with_marker(told.marker)) == 2
    return request_id(told.response) if both else ""


def test_each_workers_requests_are_known(pool: Pool) -> None:
    pool.add(1)
    with pool.client_of_each_worker() as clients:
        wanted = [request_id(pool.ask(client=client)) for client in clients]
    for each in wanted:
        assert each in json.dumps(explained(pool, each))


def test_a_request_that_found_no_credential_is_known(pool: Pool) -> None:
    response = pool.ask()
    assert response.status == 503
    assert "no_credential" in json.dumps(explained(pool, request_id(response)))


def test_the_latest_requests_of_all_workers_are_told(pool: Pool) -> None:
    (key,) = pool.add(1)
    with pool.client_of_each_worker() as clients:
        wanted = [request_id(pool.ask(client=client)) for client in clients]

    def told() -> Any:
        path = f"/admin/logs/history?limit=2&key={pool.id_of(key)}&status=2xx&route=/{pool.number}/openai"
        answer = pool.system.admin("GET", path)
        assert answer.status == 200, answer
        assert CANARY not in json.dumps(answer.body)
        return [line["request_id"] for line in answer.body["data"]] == wanted[::-1]

    eventually(told, what="the lines of both workers")


def test_an_unknown_request_is_404(pool: Pool) -> None:
    assert pool.system.admin("GET", "/admin/explain/nobodys-request").status == 404
