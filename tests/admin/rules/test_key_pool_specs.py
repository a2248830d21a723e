"""The key pool's settings one by one, as text and back."""

import msgspec
import pytest
from hypothesis import given

from admin.rules import changes, key_pool_specs
from admin.rules.changes import Change
from admin.rules.key_pool_specs import checked, decode, encode, flat, whole
from proxy.config import Algorithm, BalancePreset, BalanceQuery, ConfigError, KeyPool, PoolGroup
from tests.admin.key_pools import POOLS


@given(POOLS)
def test_settings_come_back_as_they_were(pool: KeyPool) -> None:
    assert decode(encode(pool)) == pool
    assert whole(flat(pool)) == pool
    assert whole(msgspec.json.decode(msgspec.json.encode(flat(pool)))) == pool
    assert checked(pool) == pool


def test_defaults_are_nothing() -> None:
    assert flat(KeyPool()) == {}
    assert encode(KeyPool()) == "{}"
    assert encode(KeyPool(groups={"main": PoolGroup()})) == '{"groups":{"main":{}}}'


def test_names_are_those_of_the_file() -> None:
    pool = KeyPool(
        algorithm=Algorithm.RANDOM,
        groups={"main": PoolGroup(priority=1)},
        balance_queries={"a.b": BalanceQuery(preset=BalancePreset.FACTORY)},
    )
    assert flat(pool) == {
        "algorithm": "random",
        "groups.main": {"priority": 1},
        "balance_queries.a.b": {"preset": "factory"},
    }


@pytest.mark.parametrize("spec", ["", "{", '{"colour": "red"}', '{"retry_max": 99}'])
def test_what_cannot_be_read_is_one_line(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"^database: key_pool: [^\n]+$"):
        decode(spec)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (KeyPool(groups={"a b": PoolGroup()}), "key_pool.groups.a b: not a group"),
        (KeyPool(balance_queries={"a": BalanceQuery()}), "key_pool.balance_queries.a: found neither preset nor url"),
        (KeyPool(retry_max=99), "key_pool.retry_max: found 99, expected an integer from 0 to 20"),
    ],
)
def test_what_cannot_be_used_is_refused(pool: KeyPool, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        checked(pool)


@given(POOLS, POOLS)
def test_documents_differ_as_their_key_pools_do(before: KeyPool, after: KeyPool) -> None:
    stored = [msgspec.json.decode(msgspec.json.encode(changes.document({}, pool, {}))) for pool in (before, after)]
    between = msgspec.json.decode(msgspec.json.encode(changes.of_key_pools(before, after)), type=list[Change])
    assert changes.of_documents(*stored) == between
    assert (between == []) == (before == after)
    assert {one.kind for one in between} <= {"key_pool"}


def test_groups_come_and_go() -> None:
    pool = key_pool_specs.with_group(KeyPool(), "main", PoolGroup(priority=1))
    assert pool.groups == {"main": PoolGroup(priority=1)}
    assert key_pool_specs.without_group(pool, "main") == KeyPool()
