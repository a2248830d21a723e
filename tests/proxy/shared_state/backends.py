"""Groups of backends that remember what they were given, and have running what a test says."""

from collections.abc import Mapping

from proxy.shared_state.linked_groups import BackendState, Elsewhere, Name


class ToldGroups:
    def __init__(self) -> None:
        self.states: dict[Name, BackendState] = {}
        self.elsewhere: dict[Name, int] = {}
        self.workers: dict[Name, int] = {}
        self.here: dict[Name, int] = {}

    def use_states(self, states: Mapping[Name, BackendState]) -> None:
        self.states = dict(states)

    def use_elsewhere(self, running: Mapping[Name, Elsewhere]) -> None:
        self.elsewhere = {name: told.running for name, told in running.items()}
        self.workers = {name: told.workers for name, told in running.items()}

    def running(self) -> Mapping[Name, int]:
        return self.here

    def unhealthy(self) -> set[Name]:
        return {name for name, state in self.states.items() if not state.healthy}
