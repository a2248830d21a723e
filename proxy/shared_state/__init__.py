"""Redis, seen from the data plane: what workers and machines share.

`keys.py` spells every name once. `client.py` makes a client from a URL and says whether the server will do.
`breaker.py` puts a deadline and a circuit breaker round each call, so that a Redis that is gone costs a request
nothing. `embedded.py` runs the private server of a machine that was given none.

A worker's `link.py` holds what it shares with the others. In come routes (`config_feed.py`), credentials and bans
(`credential_feed.py`, which tells `credential_view.py` and `ban_view.py`), what is known of backends
(`backend_feed.py`, with `backend_health.py`, `backend_reports.py`, `backend_counts.py` and `backend_names.py`), and
questions (`questions.py`). Out go statistics (`reporter.py`), figures of credentials (`credential_reporter.py`), bans
(`bans.py`), the requests that backends have (`backend_feed.py`) and the live log (`live_log.py`,
`live_log_channel.py`). How the control plane publishes stands beside how workers read: `published.py`,
`published_credentials.py`, `backend_health.py`. Lua scripts lie beside their callers (`scripts.py`).

Access tokens are decided about in Redis: `meter_store.py` asks with a batch, `token_store.py` publishes tokens and
changes quotas, `ledger.py` spells the rows that both leave.

Only `linked_key_pool.py`, `linked_groups.py`, `live_log.py`, `credential_events.py`, `ledger.py` and `unavailable.py`
may be imported by what a worker without a Redis runs: the others load redis-py.

Nothing here retries: a command whose connection broke may have been carried out, and only its caller knows whether it
may be sent again.
"""
