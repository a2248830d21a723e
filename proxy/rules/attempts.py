"""How often a wrong token may be tried. Pure: the time is an argument, in seconds of a clock that never goes back.

An address that fails PER_ADDRESS times within a minute is locked out for a minute, for two after the next ten failures,
and so on, until it logs in or rests. All addresses together may fail IN_ALL times a minute, where that is bounded; one
that has logged in before is let past it, so that a flood from elsewhere does not keep the operator out. What is
remembered is bounded too.
"""

import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass, field

WINDOW_S = 60.0
PER_ADDRESS = 10
IN_ALL = 100
LOCKED_S_MAX = 900.0
REST_S = 3600.0
"""After so long without a failure, an address begins anew."""
REMEMBERED = 10_000
"""Addresses that are remembered. A flood needs 100 minutes to push one out, because of the bound on all of them."""


@dataclass(slots=True)
class _Failures:
    recent_s: deque[float] = field(default_factory=deque)
    lockouts: int = 0
    locked_until_s: float = 0.0
    last_s: float = 0.0


class Attempts:
    """The failures of the last while. `in_all` None: however many others fail, an address answers for itself alone."""

    def __init__(self, per_address: int = PER_ADDRESS, in_all: int | None = IN_ALL) -> None:
        self._per_address = per_address
        self._all_s: deque[float] = deque(maxlen=in_all or 0)
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """Returns how long this address has to wait before it may try; 0 where it may."""
        source = source_of(address)
        failures = self._failures.get(source)
        wait_s = 0.0 if failures is None else failures.locked_until_s - now_s
        if self._all_s and len(self._all_s) == self._all_s.maxlen and source not in self._known:
            wait_s = max(wait_s, self._all_s[0] + WINDOW_S - now_s)
        return max(wait_s, 0.0)

    def failed(self, address: str, now_s: float) -> None:
        source = source_of(address)
        failures = self._failures.setdefault(source, _Failures())
        self._failures.move_to_end(source)
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
        if now_s - failures.last_s > REST_S:
            failures.lockouts = 0
        while failures.recent_s and failures.recent_s[0] <= now_s - WINDOW_S:
            failures.recent_s.popleft()
        failures.recent_s.append(now_s)
        failures.last_s = now_s
        self._all_s.append(now_s)
        if len(failures.recent_s) >= self._per_address:
            failures.recent_s.clear()
            failures.locked_until_s = now_s + min(WINDOW_S * 2**failures.lockouts, LOCKED_S_MAX)
            failures.lockouts += 1

    def succeeded(self, address: str) -> None:
        """Forgets the failures of an address, which has logged in."""
        source = source_of(address)
        self._failures.pop(source, None)
        self._known[source] = None
        self._known.move_to_end(source)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def source_of(address: str) -> str:
    """Returns what counts as one address: an IPv4 address, or the /64 of an IPv6 one, which one host may have."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
