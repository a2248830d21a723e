"""Whether what the control plane depends on is there: a probe for each component, asked all at once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

log = logging.getLogger("relaygate")

Probe = Callable[[], Awaitable[object]]

DEADLINE_S = 1.0
GOOD_FOR_S = 1.0
"""An answer is given again for so long: anybody may ask, and must not burden the components by it."""


class Health(StrEnum):
    OK = "ok"
    DOWN = "down"


class View(NamedTuple):
    """How a component looks that is not asked but watched anyway, with small numbers that say more."""

    health: Health
    numbers: Mapping[str, Any]


class Component(NamedTuple):
    """`since_s` is when it became so, in seconds since 1970."""

    health: Health
    since_s: int


class Readiness:
    """The state of each component. A probe raises, or takes longer than DEADLINE_S, where its component is down.

    `views` are components without which the control plane is ready all the same.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        views: Mapping[str, Callable[[], View]] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._probes = probes
        self._views = views or {}
        self._now_s = now_s
        self._states: dict[str, Component] = {}
        self._looked_s = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def components(self) -> dict[str, Component]:
        async with self._one_at_a_time:
            if not 0 <= self._now_s() - self._looked_s < GOOD_FOR_S:
                healths = await asyncio.gather(*map(_probed, self._probes.values()))
                seen = {name: view().health for name, view in self._views.items()}
                self._note(dict(zip(self._probes, healths, strict=True)) | seen)
            return dict(self._states)

    def ready(self) -> bool:
        """Whether all that is needed was there when `components` looked."""
        return all(self._states[name].health is Health.OK for name in self._probes)

    def numbers(self, name: str) -> Mapping[str, Any]:
        """What more there is to say of a component just now."""
        view = self._views.get(name)
        return {} if view is None else view().numbers

    def _note(self, healths: dict[str, Health]) -> None:
        self._looked_s = self._now_s()
        for name, health in healths.items():
            before = self._states.get(name)
            if before is None or before.health is not health:
                self._states[name] = Component(health, int(self._looked_s))
            if health is not (Health.OK if before is None else before.health):
                log.warning("%s is %s", name, health.value)


async def _probed(probe: Probe) -> Health:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await probe()
    except Exception:
        return Health.DOWN
    return Health.OK
