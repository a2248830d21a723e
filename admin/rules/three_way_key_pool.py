"""The key pool's part in applying a file: as with routes (`three_way.py`), setting by setting and group by group. Pure.

None stands for a default: what a file leaves out is as it is without a file.
"""

from typing import Any

import msgspec

from admin.rules.key_pool_specs import SECTION, flat, whole
from proxy.config import KeyPool


class Difference(msgspec.Struct, frozen=True):
    """A setting or group as it is there and as the file wants it. A conflict was changed through the API too."""

    name: str
    before: Any
    after: Any
    conflict: bool

    def line(self) -> str:
        """To be read: `~ key_pool.algorithm least-used -> random`."""
        sign = "+" if self.before is None else "-" if self.after is None else "~"
        shown = " -> ".join(_shown(value) for value in (self.before, self.after) if value is not None)
        return f"{sign} {SECTION}.{self.name} {shown}{' (also edited through the API)' if self.conflict else ''}"


def plan(current: KeyPool, wanted: KeyPool, last_applied: KeyPool | None) -> tuple[Difference, ...]:
    """What the file `wanted` does to `current`. `last_applied` is None where no file ever was."""
    bases, befores, afters = flat(last_applied or KeyPool()), flat(current), flat(wanted)
    found: list[Difference] = []
    for name in sorted(afters.keys() | bases.keys()):
        base, before, after = bases.get(name), befores.get(name), afters.get(name)
        if after not in (base, before):
            found.append(Difference(name, before, after, before != base))
    return tuple(found)


def result(current: KeyPool, differences: tuple[Difference, ...]) -> KeyPool:
    """What will be there, from what is. Raises ConfigError."""
    if not differences:
        return current
    values = flat(current) | {one.name: one.after for one in differences}
    return whole({name: value for name, value in values.items() if value is not None})


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
