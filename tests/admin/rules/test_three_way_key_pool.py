"""What the file changed of the key pool is done, what it did not touch stays."""

from hypothesis import given
from hypothesis import strategies as st

from admin.rules.key_pool_specs import flat
from admin.rules.three_way_key_pool import plan, result
from proxy.config import Algorithm, KeyPool, PoolGroup
from tests.admin.key_pools import POOLS


@given(POOLS, POOLS, st.none() | POOLS)
def test_each_setting_ends_as_the_rule_says(current: KeyPool, wanted: KeyPool, last: KeyPool | None) -> None:
    after = flat(result(current, plan(current, wanted, last)))
    there, asked, base = flat(current), flat(wanted), flat(last or KeyPool())
    for name in there.keys() | asked.keys() | base.keys():
        touched = asked.get(name) != base.get(name)
        assert after.get(name) == (asked if touched else there).get(name)


def test_a_plan_is_to_be_read() -> None:
    current = KeyPool(algorithm=Algorithm.RANDOM, ban_401=True, groups={"main": PoolGroup(priority=1)})
    wanted = KeyPool(algorithm=Algorithm.LEAST_USED, retry_max=5)
    last = KeyPool(algorithm=Algorithm.RANDOM, groups={"main": PoolGroup()})
    assert [one.line() for one in plan(current, wanted, last)] == [
        "~ key_pool.algorithm random -> least-used",
        '- key_pool.groups.main {"priority":1} (also edited through the API)',
        "+ key_pool.retry_max 5",
    ]
    assert plan(current, wanted, wanted) == ()
    assert result(current, ()) is current
