"""Settings of the key pool, as tests draw them."""

from hypothesis import strategies as st

from proxy.config import Algorithm, KeyPool, PoolGroup

GROUPS = st.dictionaries(
    st.sampled_from(["default", "main", "a.b", "groups.x"]),
    st.builds(PoolGroup, name=st.sampled_from(["", "Main"]), priority=st.sampled_from([1, 100])),
)
POOLS = st.builds(
    KeyPool,
    algorithm=st.sampled_from(Algorithm),
    retry_max=st.integers(0, 3),
    retry_statuses=st.lists(st.sampled_from([429, 500, 503])).map(tuple),
    ban_401=st.booleans(),
    groups=GROUPS,
)
