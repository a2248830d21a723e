"""What one choice among the backends of an upstream costs, by balancer and number of backends.

The law: CPU time of this process and no wall clock, the best of several turns, so that a busy machine spoils least. As
many requests as eight a backend are running, and each choice ends the oldest of them: that, its latency where the
balancer goes by latencies, and drawing random numbers are in the cost. Nothing is sent anywhere.
"""

import argparse
import gc
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.config import Balancer
from proxy.rules.balancing import Member, chooser, observe

COUNTS = (3, 10, 100, 1_000)
CHOICES = 20_000
TURNS = 5
ADDRESSES = 500
RUNNING = 8
"""Requests that are running, a backend."""
STEP_S = 0.001
WEIGHTS = (50, 100, 200)


@dataclass(frozen=True)
class Cost:
    """In microseconds: of a choice, and of the first one for an address."""

    balancer: Balancer
    backends: int
    choice_us: float
    first_us: float


def members_of(count: int, source: random.Random) -> list[Member]:
    """Members that differ in weight, and in how busy and how fast they are."""
    members = []
    for number in range(count):
        member = Member(f"upstream-10.0.0.{number}-8080", weight=source.choice(WEIGHTS))
        member.util = source.random()
        member.latency_s = source.uniform(0.01, 0.1)
        members.append(member)
    return members


def cpu_us(work: Callable[[], None]) -> float:
    began_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - began_ns) / 1000


class Traffic:
    """Requests that come and end, one by one."""

    def __init__(self, balancer: Balancer, members: Sequence[Member], source: random.Random) -> None:
        self._members = members
        self._choose: Callable[[Sequence[Member], str], Member] = chooser(balancer, members, source.random).choose
        self._observes = balancer is Balancer.LEAST_LATENCY
        self._running = deque(members[number % len(members)] for number in range(RUNNING * len(members)))
        self._addresses = [f"203.0.{number // 250}.{number % 250}" for number in range(ADDRESSES)]
        self._now_s = 0.0
        for member in members:
            member.running = RUNNING

    def send(self, choices: int) -> None:
        members, choose, running, addresses = self._members, self._choose, self._running, self._addresses
        for number in range(choices):
            ended = running.popleft()
            ended.running -= 1
            if self._observes:
                self._now_s += STEP_S
                observe(ended, ended.latency_s, self._now_s)
            chosen = choose(members, addresses[number % ADDRESSES])
            chosen.running += 1
            running.append(chosen)


def measure(balancer: Balancer, count: int, choices: int = CHOICES, turns: int = TURNS) -> Cost:
    """Chooses among `count` backends, all of which are usable."""
    source = random.Random(count)
    members = members_of(count, source)
    traffic = Traffic(balancer, members, source)
    gc.collect()
    firsts = min(choices, ADDRESSES)
    first_us = cpu_us(lambda: traffic.send(firsts)) / firsts
    choice_us = min(cpu_us(lambda: traffic.send(choices)) for _ in range(turns)) / choices
    return Cost(balancer, count, choice_us, first_us)


def table(costs: Sequence[Cost]) -> str:
    """The costs of all numbers of backends side by side, in Markdown."""
    counts = sorted({cost.backends for cost in costs})
    by_place = {(cost.balancer, cost.backends): cost for cost in costs}
    titles = [f"{title}, {count:,}" for title in ("choice µs", "first µs") for count in counts]
    lines = [["balancer", *titles], ["---", *["---:"] * len(titles)]]
    for balancer in dict.fromkeys(cost.balancer for cost in costs):
        row = [by_place[balancer, count] for count in counts]
        figures = [cost.choice_us for cost in row] + [cost.first_us for cost in row]
        lines.append([balancer, *(f"{figure:.2f}" for figure in figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.balancing_cost", description=__doc__)
    parser.add_argument("--balancers", default=",".join(Balancer), help="comma-separated; default: all")
    parser.add_argument("--choices", type=int, default=CHOICES, help="choices in one turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of which the best counts (default: %(default)s)")
    options = parser.parse_args(arguments)
    balancers = [Balancer(name) for name in options.balancers.split(",")]
    print(table([measure(name, count, options.choices, options.turns) for name in balancers for count in COUNTS]))


if __name__ == "__main__":
    main()
