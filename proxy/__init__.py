"""Relaygate's data plane. The map of the package, in the order of a request.

- `cli.py` (`__main__.py`) parses the command line; `settings.py` lays command line, environment, `.env` and YAML over
  each other, with the readers and checks in `sources/`. The result is a `Config` (`config.py`): plain, frozen structs.
- `server.py` is the parent process: its settings and what a reload does. `worker_group.py` starts, replaces and ends
  workers; `listening.py` and `listener_tls.py` have what outlives one: listening sockets, and what the TLS files held.
  `granian_worker.py` is the loop of a worker, and its ends; `parent_death.py` has the kernel tell of a parent's,
  `asking_parent.py` is what a worker asks of it.
- `app.py` is the ASGI callable: it makes each request an `Exchange` (`exchange.py`, the typed state of one request) and
  each failure an answer. `worker.py` holds what a worker's requests share, and the tick that looks after them.
- `snapshot.py` compiles a `Config` to what the hot path reads: routes in a table, pools, ready-made bytes.
- `pipeline.py` is the life of a request: route, admit, receive, choose, forward, or, of a WebSocket, tunnel. One file
  each in `phases/`.
- `key_pool/` is which credential a request goes out with; `dialects/` what a provider's answers say of it; `secrets.py`
  decrypts it.
- `metering/` asks Redis whether requests with access tokens go out, and tells it how they ended.
- `rules/` decides: values in, values out. `upstream/` owns the connections to upstreams, their pools, TLS and
  WebSockets.
- `shared_state/` is Redis as the data plane sees it: names, client, circuit breaker, and the private server of a
  machine that was given none.
- `errors.py` is the one table of what can go wrong and what a client is told of it.
- `journal.py` keeps a record of each request that was counted, `tallies.py` makes deltas of the records,
  `statistics.py` says what those are; `shared_state/reporter.py` sends them. `tracing.py` makes spans.
- `logs.py` says what a line of the log looks like, in every process.
- `eager.py` runs a task at once where the event loop would a turn later.
- `access_log.py` writes what was relayed; `client_sockets.py` asks the kernel what Granian does not tell of clients.

Imports point downward (`pyproject.toml` has the order, `lint-imports` holds it). ARCHITECTURE.md tells the same as a
story.
"""
