"""Whether the rows of a token add up: none is missing, each begins where the one before it ended, and what remains is
what the last one left. So the sum of all changes is what remains. Pure.
"""

from typing import NamedTuple


class Link(NamedTuple):
    """A row, as far as it counts."""

    sequence: int
    before: int
    after: int
    change: int


class Point(NamedTuple):
    """What remains after the change of a number."""

    sequence: int
    balance: int


BEGINNING = Point(0, 0)
"""Of a token whose rows are all there."""


class Chain:
    """Follows the rows of one token from `begin`, or, without one, from its first row on."""

    def __init__(self, begin: Point | None) -> None:
        self.end = begin
        self.problem = ""
        """The first that was found; empty: none."""

    def add(self, link: Link) -> None:
        """Takes the row that comes next."""
        if not self.problem:
            self.problem = self._problem_of(link)
        self.end = Point(link.sequence, link.after)

    def conclude(self, said: Point) -> str:
        """Returns what is wrong, given what the database says of the token itself; nothing where all adds up."""
        if self.problem or self.end == said:
            return self.problem
        sequence, balance = self.end or BEGINNING
        if sequence != said.sequence:
            return f"its rows end with number {sequence}, and {said.sequence} are counted"
        return f"its rows amount to {balance}, and {said.balance} remains"

    def _problem_of(self, link: Link) -> str:
        if link.before + link.change != link.after:
            return f"row {link.sequence} makes {link.after} of {link.before} by a change of {link.change}"
        if self.end is None:
            return ""
        if link.sequence != self.end.sequence + 1:
            return f"row {self.end.sequence + 1} is missing, {link.sequence} is there"
        if link.before != self.end.balance:
            return f"row {link.sequence} begins with {link.before}, and {self.end.balance} was left"
        return ""
