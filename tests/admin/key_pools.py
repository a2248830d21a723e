"""Settings of the key pool, as tests draw them."""

from hypothesis import strategies as st

from proxy.config import Algorithm, BalanceMethod, BalancePreset, BalanceQuery, KeyPool, PoolGroup

GROUPS = st.dictionaries(
    st.sampled_from(["default", "main", "a.b", "groups.x"]),
    st.builds(PoolGroup, name=st.sampled_from(["", "Main"]), priority=st.sampled_from([1, 100])),
)
QUERIES = st.dictionaries(
    st.sampled_from(["factory", "a.b", "balance_queries.x"]),
    st.builds(BalanceQuery, preset=st.just(BalancePreset.FACTORY), providers=st.sampled_from([(), ("unknown",)]))
    | st.builds(
        BalanceQuery,
        url=st.sampled_from(["https://x.test/{key}?a=b", "http://y.test"]),
        method=st.sampled_from(BalanceMethod),
        headers=st.sampled_from([{}, {"x-key": "{key}"}]),
        body=st.sampled_from([None, {}, {"key": ["{key}", 1, None]}]),
        used=st.sampled_from(["", "/a~1b/0"]),
        scale=st.sampled_from([1.0, 0.5]),
        pool_groups=st.sampled_from([(), ("main",)]),
    ),
)
POOLS = st.builds(
    KeyPool,
    algorithm=st.sampled_from(Algorithm),
    retry_max=st.integers(0, 3),
    retry_statuses=st.lists(st.sampled_from([429, 500, 503])).map(tuple),
    ban_401=st.booleans(),
    balance_interval_s=st.sampled_from([None, 60.0, 300.0]),
    balance_queries=QUERIES,
    groups=GROUPS,
)
