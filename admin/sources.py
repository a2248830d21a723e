"""The YAML file and the admin API side by side, as `kubectl apply` does it.

What the file said when it was last applied is kept; what changed in it since then is done, what was edited otherwise
stays. `rules/three_way.py` decides.
"""

import logging

import msgspec

from admin.rules.three_way import Plan
from admin.services.routes import Routes
from admin.services.settings import Settings
from proxy.config import ConfigError, Route

log = logging.getLogger("relaygate")

LAST_APPLIED = "routes_of_the_file"
ACTOR = "file"


async def last_applied(settings: Settings) -> dict[str, Route] | None:
    """Returns what the file said when it was last applied, None where none ever was. Raises ConfigError."""
    kept = await settings.get(LAST_APPLIED)
    try:
        return None if kept is None else msgspec.json.decode(kept, type=dict[str, Route])
    except msgspec.DecodeError as error:
        raise ConfigError("database", LAST_APPLIED, str(error)) from None


async def apply_file(wanted: dict[str, Route], routes: Routes, settings: Settings) -> Plan:
    """Makes the routes what the file says, and keeps that for the next time. Raises ConfigError."""
    applied = await routes.apply(wanted, await last_applied(settings), ACTOR)
    await settings.put(LAST_APPLIED, msgspec.json.encode(wanted).decode())
    for line in applied.plan.lines():
        log.info("applied from the file: %s", line)
    return applied.plan
