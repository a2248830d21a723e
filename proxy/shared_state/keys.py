"""The names in Redis, each spelled once. All begin with `relaygate:`.

A Redis Cluster puts a key into the slot of what stands between its braces, and does in one transaction or script only
what lies in one slot. The keys of the published configuration share the tag `{config}`, because sections and version
are written together; those of credentials share `{credentials}`, those of access tokens `{metering}`, for their
scripts; those of backends `{backends}`, which are read in one go. The others have no tag: they are used alone, and may
lie on other nodes.
"""

CONFIG_SECTIONS = "relaygate:{config}:sections"
"""Hash: name of a section -> its content in msgpack. What the control plane has published."""

CONFIG_VERSION = "relaygate:{config}:version"
"""Which version is published, `number@time` (milliseconds since 1970), set in the transaction that writes the sections.

Absent: none is.
"""

CONFIG_CHANNEL = "relaygate:{config}:changed"
"""Channel: each new version is announced here. Announcements can get lost; the version is what counts."""

RELOAD_TLS = "relaygate:{tls}:reload"
"""String: a number that grows each time somebody wants the listener's certificate to be loaded again."""

RELOAD_TLS_CHANNEL = "relaygate:{tls}:changed"
"""Channel: each new number of `RELOAD_TLS` is announced here. Announcements can get lost; the number is what counts."""

EVENTS = "relaygate:events"
"""Stream: what workers report to the control plane, in msgpack (`events.py`)."""

WORKERS = "relaygate:workers"
"""Hash: name of a worker -> what it last said of itself, in msgpack (`worker_state.py`)."""

SUMMARY = "relaygate:summary"
"""String, with an expiry: the figures of all workers in JSON, as workers answer them at `server.stats_path`."""

CREDENTIALS = "relaygate:{credentials}:records"
"""Hash: id of a credential -> `Credential` in msgpack, its secret encrypted. What the control plane has published.

Behind the empty id lies the generation (`published_credentials.py`).
"""

CREDENTIALS_CHANGES = "relaygate:{credentials}:records-changes"
"""Sorted set: id of a credential -> the version that last changed or removed it."""

CREDENTIALS_VERSION = "relaygate:{credentials}:records-version"
"""Which version of the credentials is published, a mark as `CONFIG_VERSION`. Its time is when versions began to count.

Of another time: all are to be read.
"""

BANS = "relaygate:{credentials}:bans"
"""Hash: id of a credential, and behind a NUL a model -> `Ban` in msgpack. Absent: usable."""

BANS_CHANGES = "relaygate:{credentials}:bans-changes"
"""Sorted set: field of `BANS` -> the number of its last change."""

BANS_VERSION = "relaygate:{credentials}:bans-version"
"""Number of the last change of `BANS`, counted up by the script that makes it. Smaller than known: read all."""

CREDENTIALS_CHANNEL = "relaygate:{credentials}:changed"
"""Channel: `records` and the new version, or `bans`, the number, the field and the ban, in msgpack."""

QUESTIONS_CHANNEL = "relaygate:questions"
"""Channel: what the control plane asks all workers, in msgpack (`questions.py`)."""

ANSWERS = "relaygate:answers:"
"""Begins the name of a list, with an expiry, to which workers add what they know of a question."""

LIVE_LOG_CHANNEL = "relaygate:live-log"
"""Channel: lines about requests in JSON, while somebody listens, in batches (`live_log.py`)."""

OAUTH_LOCK = "relaygate:oauth-lock"
"""String, with an expiry: who is refreshing the OAuth credential just now, as a random text that he alone knows."""

BALANCES_TURN = "relaygate:balances-turn:"
"""Begins the name of a string that expires after an interval, whose seconds the name ends with: one control plane has
begun to read balances within it. Another interval is another name, so it counts at once.
"""

METER_TOKEN = "relaygate:{metering}:token:"  # noqa: S105 - the name of keys
"""Begins the name of a hash of an access token, which ends with its digest: its record, terms, counter (`meter.lua`).

Its windows and what runs with it lie in hashes whose names have `:rate` and `:held` behind that.
"""

METER_LEDGER = "relaygate:{metering}:ledger"
"""Stream: each change of a counter, and how requests ended, made in the step that makes the change (`ledger.py`)."""

METER_WORKERS = "relaygate:{metering}:workers"
"""Hash: name of a worker -> when its last call came, in milliseconds. What a silent one holds does not count."""

METER_READY = "relaygate:{metering}:ready"
"""String: set once all access tokens are in Redis. Absent: nothing is admitted."""

METER_REVISION = "relaygate:{metering}:revision"
"""String: the revision up to which access tokens are in Redis."""

METER_FILLED = "relaygate:{metering}:filled"
"""String: which start of Redis the access tokens were filled into, and of which database. Others are filled anew."""

BACKEND_HEALTH = "relaygate:{backends}:health"
"""Hash: an upstream's name, a NUL and a backend's id -> `BackendHealth` in msgpack (`backend_health.py`).

Behind the empty field lies when somebody last looked after all of it. Absent: the hash says nothing.
"""

BACKEND_REPORTS = "relaygate:{backends}:reports"
"""Hash: a backend as in `BACKEND_HEALTH` -> what it last said of its load, in msgpack (`backend_reports.py`)."""

BACKENDS_RUNNING = "relaygate:{backends}:running"
"""Hash: name of a worker -> how many requests each backend has from it, in msgpack (`backend_counts.py`)."""

BACKENDS_CHANNEL = "relaygate:{backends}:changed"
"""Channel: that what is known of backends has changed. Announcements can get lost; the hashes are what counts."""

BACKENDS_CHECKER = "relaygate:{backends}:checker"
"""String, with an expiry: which control plane checks backends, as a random text that it alone knows."""
