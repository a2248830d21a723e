"""The settings of the key pool; all their spellings are in `tests/admin/rules/test_key_pool_names.py`."""

from proxy.config import Algorithm, KeyPool, PoolGroup
from tests.admin.api import Api


def test_the_documented_update(api: Api) -> None:
    body = {
        "algorithm": "max-remaining",
        "retry": {"enabled": True, "max": 2},
        "autoBan": {"enabled": True, "ban_402": False},
    }
    answer = api.ask("PUT", "/admin/config", body)
    assert answer.status_code == 200
    assert answer.json()["data"]["retry"]["max"] == 2
    pool = KeyPool(algorithm=Algorithm.MAX_REMAINING, retry_max=2, ban_402=False)
    assert api.memory.about_keys.pool.settings == pool
    shown = api.ask("GET", "/admin/config").json()
    assert shown == {"success": True, "data": answer.json()["data"]}
    assert shown["data"]["multiTier"] == {"enabled": False, "autoFallback": True, "strictMode": False}


def test_what_is_shown_can_be_sent_back(api: Api) -> None:
    shown = api.ask("GET", "/admin/config").json()["data"]
    assert api.ask("PUT", "/admin/config", shown).json()["data"] == shown


def test_a_reset_keeps_the_groups(api: Api) -> None:
    groups = {"main": PoolGroup()}
    api.memory.about_keys.pool.settings = KeyPool(retry_max=7, groups=groups)
    assert api.ask("POST", "/admin/config/reset").json()["data"]["retry"]["max"] == 3
    assert api.memory.about_keys.pool.settings == KeyPool(groups=groups)


def test_what_cannot_be_used_is_told_as_it_was_spelled(api: Api) -> None:
    for body, says in (
        ({}, "the body is empty"),
        ([], "the body: found a list"),
        ({"retry": {"max": 99}}, "retry.max: found a number, expected an integer from 0 to 20"),
        ({"autoban": {}}, "autoban: unknown field, the nearest known one is autoBan"),
    ):
        answer = api.ask("PUT", "/admin/config", body)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
        assert answer.json()["message"].startswith(says)
    assert api.memory.about_keys.pool.settings == KeyPool()
