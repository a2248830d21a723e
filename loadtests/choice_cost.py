"""What one choice among the credentials of the key pool costs, by algorithm and number of credentials.

The law: CPU time of this process and no wall clock, the best of several turns, so that a busy machine spoils least.
Time as the selectors are told it goes on by a millisecond a choice, and figures grow as in use: that, and drawing
random numbers, is in the cost. Nothing is sent anywhere.
"""

import argparse
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.config import Algorithm, KeyPool
from proxy.rules.credentials import Credential
from proxy.rules.selection import Candidate, Selector, selector

COUNTS = (10, 1_000, 100_000)
CHOICES = 20_000
TURNS = 5
STEP_S = 0.001
NOW_S = 1_790_000_000.0
TOKENS_TOTAL = 10_000_000
TOKENS_A_USE = 500
WINDOW_S = 10.0
"""So short that as many uses leave the window as enter it, once a turn is over."""


@dataclass(frozen=True)
class Cost:
    """In microseconds: of a choice with `changed` after it, of taking one out and adding it again, of adding all."""

    algorithm: Algorithm
    credentials: int
    choice_us: float
    move_us: float
    build_us: float


def candidates_of(count: int, source: random.Random) -> list[Candidate]:
    """Credentials that differ in all figures, as after some weeks of use."""
    return [
        Candidate(
            Credential(
                id=f"key-{number}",
                secret="",
                requests=(requests := source.randrange(5_000)),
                successes=requests - source.randrange(requests // 10 + 1),
                last_used_s=NOW_S - source.random() * 86_400,
                tokens_used=source.randrange(TOKENS_TOTAL),
                tokens_total=TOKENS_TOTAL,
            )
        )
        for number in range(count)
    ]


def cpu_us(work: Callable[[], None]) -> float:
    began_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - began_ns) / 1000


class Clock:
    """Time as the selectors are told it."""

    def __init__(self) -> None:
        self.now_s = NOW_S


def use(chooser: Selector, clock: Clock, choices: int, source: random.Random, keys: Sequence[bytes]) -> None:
    """Chooses and uses so many times."""
    now_s, random01 = clock.now_s, source.random
    for number in range(choices):
        now_s += STEP_S
        chosen = chooser.choose(now_s, random01, keys[number % len(keys)])
        if chosen is not None:
            chosen.requests += 1
            chosen.successes += 1
            chosen.last_used_s = now_s
            chosen.tokens_used = (chosen.tokens_used or 0) + TOKENS_A_USE
            chooser.changed(chosen)
    clock.now_s = now_s


def measure(algorithm: Algorithm, count: int, choices: int = CHOICES, turns: int = TURNS) -> Cost:
    """Builds a selector of `count` credentials, then chooses, removes and adds."""
    source = random.Random(count)
    keys = [source.randbytes(16) for _ in range(1_000)]
    candidates = candidates_of(count, source)
    chooser, clock = selector(KeyPool(algorithm=algorithm, window_s=WINDOW_S)), Clock()
    moved = source.sample(candidates, min(count, choices))

    def add_all() -> None:
        for candidate in candidates:
            chooser.add(candidate)

    def move() -> None:
        for candidate in moved:
            chooser.remove(candidate)
            chooser.add(candidate)

    build_us = cpu_us(add_all)
    gc.collect()
    use(chooser, clock, choices, source, keys)
    choosing_us = min(cpu_us(lambda: use(chooser, clock, choices, source, keys)) for _ in range(turns))
    moving_us = min(cpu_us(move) for _ in range(turns))
    return Cost(algorithm, count, choosing_us / choices, moving_us / len(moved), build_us)


def table(costs: Sequence[Cost]) -> str:
    """The costs of all numbers of credentials side by side, in Markdown."""
    counts = sorted({cost.credentials for cost in costs})
    by_place = {(cost.algorithm, cost.credentials): cost for cost in costs}
    titles = [f"{title}, {count:,}" for title in ("choice µs", "remove + add µs") for count in counts]
    lines = [["algorithm", *titles, f"add {counts[-1]:,}, ms"]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for algorithm in dict.fromkeys(cost.algorithm for cost in costs):
        row = [by_place[algorithm, count] for count in counts]
        figures = [cost.choice_us for cost in row] + [cost.move_us for cost in row]
        lines.append([algorithm, *(f"{figure:.2f}" for figure in figures), f"{row[-1].build_us / 1000:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.choice_cost", description=__doc__)
    parser.add_argument("--algorithms", default=",".join(Algorithm), help="comma-separated; default: all")
    parser.add_argument("--choices", type=int, default=CHOICES, help="choices in one turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of which the best counts (default: %(default)s)")
    options = parser.parse_args(arguments)
    algorithms = [Algorithm(name) for name in options.algorithms.split(",")]
    print(table([measure(name, count, options.choices, options.turns) for name in algorithms for count in COUNTS]))


if __name__ == "__main__":
    main()
