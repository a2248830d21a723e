"""What Locust lets pass: a run in which nobody asked for anything ends as a success. Loaded beside each scenario."""

from typing import Any

from locust import events
from locust.env import Environment

from loadtests.locust_run import NO_REQUEST


def refuse_an_empty_run(environment: Environment, **_: Any) -> None:
    if not environment.stats.total.num_requests:
        environment.process_exit_code = NO_REQUEST


events.quitting.add_listener(refuse_an_empty_run)  # type: ignore[no-untyped-call]
