"""All groups of a worker, one an upstream, and what Redis tells of their backends and is told."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from proxy.config import Upstream
from proxy.upstream.group import Group

Name = tuple[str, str]


class State(Protocol):
    """What the control plane knows of a backend."""

    @property
    def healthy(self) -> bool: ...
    @property
    def util(self) -> float: ...


class Groups:
    """A group stays as long as there is an upstream of its name, whatever is edited of that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_name: dict[str, Group] = {}
        self._states: Mapping[Name, State] = {}

    def use(self, upstreams: Mapping[str, Upstream]) -> None:
        """Takes all upstreams that there are."""
        for name in self._by_name.keys() - upstreams.keys():
            self._by_name.pop(name).use(Upstream())
        for name, settings in upstreams.items():
            group = self._by_name.get(name)
            if group is None:
                group = self._by_name[name] = Group(name, self._loop)
            group.use(settings)
        self._tell_states()

    def get(self, name: str) -> Group:
        """Raises KeyError where there is no such upstream."""
        return self._by_name[name]

    def tick(self) -> None:
        """Lets those backends back whose time has come. Called ten times a second."""
        for group in self._by_name.values():
            group.tick()

    def use_states(self, states: Mapping[Name, State], /) -> None:
        """Takes all that is known; a backend that is not named is healthy and idle."""
        self._states = states
        self._tell_states()

    def use_elsewhere(self, running: Mapping[Name, tuple[int, int]], /) -> None:
        """Takes how many requests each backend has from all other workers, and from how many of these."""
        for name, group in self._by_name.items():
            group.use_elsewhere({backend: count for (upstream, backend), count in running.items() if upstream == name})

    def running(self) -> Mapping[Name, int]:
        """Returns how many requests each backend has from this worker; those without any are left out."""
        return {
            (name, member.id): member.running
            for name, group in self._by_name.items()
            for member in group.members
            if member.running
        }

    def _tell_states(self) -> None:
        for name, group in self._by_name.items():
            here = {backend: state for (upstream, backend), state in self._states.items() if upstream == name}
            unhealthy = frozenset(backend for backend, state in here.items() if not state.healthy)
            group.use_states(unhealthy, {backend: state.util for backend, state in here.items()})
