"""Reference 004's document, as it has it, and what it is as upstreams and routes of ours."""

from typing import Any

from proxy.config import Backend, Balancer, HealthCheck, Protocols, Route, Upstream

DOCUMENTED: dict[str, Any] = {
    "backends": {
        "default": [
            {
                "id": "backend1",
                "name": "Backend Server 1",
                "host": "127.0.0.1",
                "port": 8081,
                "weight": 100,
                "scheme": "http",
                "active": True,
                "max_conn": 1000,
                "health_check": {"path": "/health", "interval": "30s", "timeout": "5s", "failures": 3},
            }
        ]
    },
    "routing": {
        "default": {
            "path": "/",
            "upstream": "default",
            "load_balancer": "least_connections_weight",
            "protocols": {"websocket": "ip_hash", "sse": "ip_hash"},
        }
    },
}
BACKEND = Backend(url="http://127.0.0.1:8081", id="backend1", name="Backend Server 1", health_check=HealthCheck())
UPSTREAMS = {"default": Upstream(backends=(BACKEND,))}
ROUTES = {
    "/": Route(
        upstream="default",
        balancer=Balancer.LEAST_CONNECTIONS_WEIGHT,
        protocols=Protocols(websocket=Balancer.IP_HASH, sse=Balancer.IP_HASH),
    )
}
