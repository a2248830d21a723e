"""Upstreams, as tests draw them: with an id for each backend, and no two of one id or URL."""

from itertools import product

from hypothesis import strategies as st

from proxy.config import Backend, Balancer, HealthCheck, Protocols, Upstream, UpstreamTls

BACKENDS = st.lists(
    st.sampled_from(
        [
            Backend(
                url=f"https://{host}.example", id=id_, weight=weight, draining=weight == 70, health_check=health_check
            )
            for host, id_, weight, health_check in product(
                "abc",
                ("b1", "b2", "api-a.example-443"),
                (50, 70, 100),
                (None, HealthCheck(), HealthCheck(path="/up", statuses=(200, 204))),
            )
        ]
    ),
    unique_by=(lambda one: one.id, lambda one: one.url),
    max_size=3,
).map(tuple)
UPSTREAMS = st.builds(
    Upstream,
    backends=BACKENDS,
    balancer=st.sampled_from(Balancer),
    protocols=st.sampled_from([Protocols(), Protocols(websocket=Balancer.IP_HASH), Protocols(sse=Balancer.WEIGHT)]),
    health_check=st.sampled_from([None, HealthCheck(interval_s=1.5)]),
    retry_statuses=st.sampled_from([(502, 503, 504), ()]),
    tls=st.sampled_from([UpstreamTls(), UpstreamTls(verify=False)]),
)
NAMED = st.dictionaries(st.sampled_from(["api", "a.b"]), UPSTREAMS)
