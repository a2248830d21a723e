"""Reference 001's key pool, taken over."""

import json
from typing import Any

import pytest

from admin.rules import droid2api
from admin.rules.droid2api import Found, merged
from admin.rules.key_lists import InvalidLine, NewCredential
from proxy.config import Algorithm, ConfigError, KeyPool, PoolGroup

A, B, C, D = (f"fk-{letter * 24}" for letter in "abcd")
DOCUMENTED: dict[str, Any] = {
    "keys": [
        {
            "id": "key_1760000000000_abc",
            "key": A,
            "provider": "factory",
            "poolGroup": "freebies",
            "status": "active",
            "created_at": "2025-10-08T00:00:00.000Z",
            "last_used_at": None,
            "usage_count": 3,
            "error_count": 0,
            "last_test_result": "success",
            "banned_at": None,
            "notes": "first",
        },
        {"id": "key_2", "key": B, "status": "banned", "banned_reason": "Payment Required", "notes": ""},
        {"id": "key_3", "key": C, "status": "disabled", "poolGroup": "gone"},
        {"id": "key_4", "status": "active"},
        D,
    ],
    "stats": {"total": 5, "last_rotation_index": 2},
    "poolGroups": [
        {"id": "freebies", "name": "白嫖池", "priority": 1},
        {"id": "main", "name": "主力池", "priority": 2, "description": "x"},
        {"name": "no id"},
    ],
    "config": {
        "algorithm": "max-remaining",
        "retry": {"enabled": True, "maxRetries": 2, "retryDelay": 500},
        "autoBan": {"enabled": True, "errorThreshold": 5, "ban402": True, "ban401": True},
        "performance": {"concurrentLimit": 100, "requestTimeout": 10000},
        "multiTier": {"enabled": True, "autoFallback": True},
        "weights": {"successRate": 0.6},
    },
}


def read(document: object) -> Found:
    return droid2api.read("key_pool.json", json.dumps(document))


def test_the_references_file_is_keys_groups_and_settings() -> None:
    found = read(DOCUMENTED)
    keys = [one for one in found.keys if isinstance(one, NewCredential)]
    assert [(one.secret, one.group, one.enabled, one.notes) for one in keys] == [
        (A, "freebies", True, "first"),
        (B, "default", False, ""),
        (C, "default", False, ""),
        (D, "default", True, ""),
    ]
    assert [one.line for one in found.keys if isinstance(one, InvalidLine)] == [4]
    assert found.groups == {
        "freebies": PoolGroup(name="白嫖池", priority=1),
        "main": PoolGroup(name="主力池", priority=2),
    }
    pool = KeyPool(**found.settings)
    assert (pool.algorithm, pool.retry_max, pool.retry_delay_ms) == (Algorithm.MAX_REMAINING, 2, 500)
    assert (pool.ban_401, pool.concurrent_limit, pool.multi_tier) == (True, 100, True)
    assert found.problems == [
        "poolGroups: entry 3 is no group with id, name and priority",
        "config: 'weights': there is nothing of the kind here",
        "keys: 1 were banned there, and are disabled here",
        "keys: there is no pool group 'gone', so its keys are of default",
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"keys": [A]},
        [A],
        {"keys": [{"key": A}], "poolGroups": None, "config": None},
        {"keys": [A], "poolGroups": {}},
    ],
)
def test_what_a_variant_leaves_out_is_not_missed(document: object) -> None:
    found = read(document)
    assert [one.secret for one in found.keys if isinstance(one, NewCredential)] == [A]
    assert (found.groups, found.settings, found.problems) == ({}, {}, [])


def test_groups_by_id_are_groups_too() -> None:
    assert read({"keys": [], "poolGroups": {"main": {"priority": 2}}}).groups == {"main": PoolGroup(priority=2)}


def test_one_wrong_setting_keeps_no_other_back() -> None:
    found = read({"keys": [], "config": {"retry": {"maxRetries": 99, "enabled": False}, "autoBan": 3}})
    assert found.settings == {"retry_enabled": False}
    assert [one.split(": ")[1] for one in found.problems] == ["autoBan", "retry.maxRetries"]


def test_of_a_setting_that_is_there_twice_the_one_that_droid2api_reads_counts() -> None:
    written = {
        "retry": {"enabled": True, "maxRetries": 3, "retryDelay": 2500},
        "performance": {"concurrentLimit": 100, "requestTimeout": 20000},
        "retry_delay_ms": 1000,
        "request_timeout_ms": 10000,
        "batch_test_interval_ms": 500,
        "cache_ttl_ms": 300000,
    }
    found = read({"keys": [], "config": written})
    assert (found.settings["retry_delay_ms"], found.settings["request_timeout_ms"]) == (2500, 20000)
    assert found.problems == []
    assert read({"keys": [], "config": {"retry_delay_ms": 7}}).settings == {"retry_delay_ms": 7}


def test_a_group_that_cannot_be_used_is_named() -> None:
    found = read({"keys": [], "poolGroups": [{"id": "白嫖", "priority": 1}, {"id": "main", "priority": -1}, {"id": 7}]})
    assert found.groups == {}
    assert found.problems == [
        "poolGroups: '白嫖': its id: expected 1 to 64 letters, digits, dots, hyphens and underscores",
        "poolGroups: 'main': expected a name, and a priority that is an integer from 0 to 1000000",
        "poolGroups: entry 3 is no group with id, name and priority",
    ]


def test_a_key_of_an_unknown_status_is_disabled() -> None:
    found = read({"keys": [{"key": A, "status": "resting"}, {"key": B, "status": None}]})
    assert [one.enabled for one in found.keys if isinstance(one, NewCredential)] == [False, True]
    assert found.problems == ["keys: 1 were neither active, disabled nor banned there, and are disabled here"]


@pytest.mark.parametrize("text", ["", "{", "7", '{"keys": 7}', '{"routes": []}'])
def test_what_is_no_key_pool_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^key_pool\.json: "):
        droid2api.read("key_pool.json", text)


def test_what_was_set_here_stays_unless_it_is_to_be_replaced() -> None:
    found = Found([], {"main": PoolGroup(priority=2), "new": PoolGroup()}, {"retry_max": 2, "ban_401": True}, [])
    here = KeyPool(retry_max=7, groups={"main": PoolGroup(priority=9)})
    kept = merged(here, found, replace=False)
    assert kept.pool == KeyPool(retry_max=7, ban_401=True, groups={"main": PoolGroup(priority=9), "new": PoolGroup()})
    assert kept.lines == [
        "~ key_pool.ban_401 false -> true",
        "= key_pool.retry_max 7 (kept; not 2)",
        "= pool group main (kept)",
        "+ pool group new priority 100",
    ]
    replaced = merged(here, found, replace=True)
    assert replaced.pool == KeyPool(
        retry_max=2, ban_401=True, groups={"main": PoolGroup(priority=2), "new": PoolGroup()}
    )
    assert merged(replaced.pool, found, replace=True).lines == []
