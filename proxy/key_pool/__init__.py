"""The key pool of one worker: which credential a request goes out with, and what its answer says of that.

- `pool.py` is what phases ask: the candidates by group, a selector for each tier, the choice.
- `ban_book.py` has the bans: as Redis has them, and as this worker knows better until it has written that.
- `figures.py` counts what was asked with each credential, for the control plane.
- `traces.py` remembers the latest requests: which credentials they tried, and why.

All of it belongs to one event loop. What is decided here is decided by `rules/`: `selection`, `tiers`, `bans`.
"""
