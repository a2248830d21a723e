"""The YAML file and the admin API side by side, as `kubectl apply` does it.

What the file said when it was last applied is kept; what changed in it since then is done, what was edited otherwise
stays. `rules/three_way.py` decides.
"""

import logging

from admin.rules.three_way import Plan
from admin.services.routes import Routes
from proxy.config import KeyPool, Route, Upstream

log = logging.getLogger("relaygate")

ACTOR = "file"


async def apply_file(
    wanted: dict[str, Route],
    routes: Routes,
    key_pool: KeyPool | None = None,
    upstreams: dict[str, Upstream] | None = None,
) -> Plan:
    """Makes routes, upstreams and key pool what the file says, and tells what that changed. Raises ConfigError."""
    applied = await routes.apply(wanted, ACTOR, key_pool, upstreams)
    for line in applied.plan.lines():
        log.info("applied from the file: %s", line)
    for prefix, group in applied.lacking:
        log.warning("route %s names pool group %s, which there is not: no key of it can be used", prefix, group)
    return applied.plan
