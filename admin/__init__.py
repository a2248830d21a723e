"""Relaygate's control plane: the only owner of SQL, the only publisher of configuration. The map of the package.

- `cli.py` (`__main__.py`) is the whole command line: `proxy/cli.py`'s commands and these. `supervisor.py` runs both
  planes and the embedded Redis on one machine; `control_plane.py` puts the control plane together; `commands.py` does
  what the command line asks of the database, `imports.py` what it takes over from other programs.
- `database.py` opens a database from its URL (`database_url.py`) and gives transactions; `tables.py` says what is in
  it, `migrations/` make it so. `data_directory.py` makes the place for files. `rotation.py` puts a new key of
  secrets in the place of the old one.
- `services/` has one noun a file: what can be asked of it and done to it. `services/edits.py` is the one transaction in
  which the configuration changes. `publisher.py` takes the newest version to Redis; `sources.py` brings the YAML file
  in.
- `consumer.py` takes what lies in a stream, such as what workers report, from Redis to SQL (`services/events.py`,
  `services/statistics_intake.py`); `summary.py` writes the small form of the figures back. `jobs.py` does again and
  again what has no end, such as forgetting (`services/retention.py`).
- `about_keys.py` puts together what is about credentials: `credential_publisher.py` takes them to Redis, `oauth.py`
  keeps the OAuth credential fresh (`oauth_sources.py`, `auth_file.py`, `token_endpoint.py`, `redis_lock.py`),
  `key_tests.py` tests keys against their upstream, `key_balances.py` asks providers what they have used (both with
  `upstream_calls.py`, for all keys by `key_sweeps.py`), `live_log.py` and `explanations.py` tell of
  requests. `key_commands.py` and `key_imports.py` are its command line, with `progress.py`.
- `about_tokens.py` puts together what is about access tokens: `token_publisher.py` takes them to Redis, a second
  consumer brings their ledger into SQL (`services/ledger_intake.py`), `quota_cleanup.py` has its oldest rows removed
  (`services/ledger_retention.py`). `ledger_commands.py` proves it (`services/ledger_proof.py`, `counter_proof.py`) and
  prints it.
- `health_checks.py` asks backends how they are, with `upstream_calls.py`, and publishes what it finds;
  `services/backend_states.py` reads that for the others.
- `app.py` makes the Litestar application; `server.py` runs it, as one process of low priority. `auth.py` says who may:
  the admin token, or a session (`sessions.py`). `context.py` hands endpoints what they need, and records what they do.
- `endpoints/` has one noun a file. `request_bodies.py` reads what they are sent, `answers.py` is the table of what they
  refuse, `readiness.py` asks the components how they are. `schema_page/` shows the OpenAPI document. `ports.py` is what
  all this asks of the SQL side.
- `management.py` is reference 004's management of upstreams (`balancing_ports.py`), in its own documents
  (`rules/speedmimi_documents.py`), for endpoints and for `grpc_api/`, which offers it over gRPC where that is enabled.
  `services/shared_reports.py` takes what backends say of their load to Redis, `tls_reload.py` has workers load the
  listener's certificate again.
- `rules/` decides: values in, values out.

It imports from `proxy`, never the other way round.
"""
