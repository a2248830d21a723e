"""The names in Redis, each spelled once. All begin with `relaygate:`.

A Redis Cluster puts a key into the slot of what stands between its braces, and does in one transaction or script only
what lies in one slot. The keys of the published configuration share the tag `{config}`, because sections and version
are written together. The others have no tag: they are used alone, and may lie on other nodes.
"""

CONFIG_SECTIONS = "relaygate:{config}:sections"
"""Hash: name of a section -> its content in msgpack. What the control plane has published."""

CONFIG_VERSION = "relaygate:{config}:version"
"""Which version is published, `number@time` (milliseconds since 1970), set in the transaction that writes the sections.

Absent: none is.
"""

CONFIG_CHANNEL = "relaygate:{config}:changed"
"""Channel: each new version is announced here. Announcements can get lost; the version is what counts."""

EVENTS = "relaygate:events"
"""Stream: what workers report to the control plane, in msgpack (`events.py`)."""

WORKERS = "relaygate:workers"
"""Hash: name of a worker -> what it last said of itself, in msgpack (`worker_state.py`)."""

SUMMARY = "relaygate:summary"
"""String, with an expiry: the figures of all workers in JSON, as workers answer them at `server.stats_path`."""
