"""Load on the relay and on its rivals: what it costs, side by side, and whether it holds.

Comparison, `python -m loadtests.compare` (its law: rivals alternate within a round on one machine, and ratios count):

- `compare.py` is the command; `cases.py` has one class a case: what is sent, and what is read off;
- `balanced_cases.py` has those with several backends: `group_servers.py` is how each proxy is configured for them,
  `failures.py` makes them fail by a script, and `get_load.py` judges every answer meanwhile;
- `own_cases.py` has those of relaygate alone: `paired.py` compares two relays that differ by a few per cent,
  `serving.py` starts and examines `relaygate serve`;
- `servers.py` is how each proxy is configured; `upstreams.py` what they are put in front of;
- `wrk.py`, `sse_client.py`, `transfers.py`, `idle_clients.py` are the clients;
- `streaming_upstream.py` and `naive_proxy.py` are programs that the comparison starts;
- `processes.py` starts and ends programs, `measure.py` reads their cost from /proc;
- `samples.py` does the arithmetic (medians, ratios, targets) and `report.py` the page. Both are pure.

Open connections, `python -m loadtests.idle_load`: `idle_load.py` weighs them, and measures requests beside them.

Changes under load, `python -m loadtests.changes`: `changes.py` edits, replaces and kills what it can while
`steady_load.py` judges every answer; `edit_visibility.py` times edits, `keep_alive.py` is their client, and
`echo_upstream.py` says what it was asked.

A choice among credentials, `python -m loadtests.choice_cost`: `choice_cost.py` times the selectors alone.
A choice among backends, `python -m loadtests.balancing_cost`: `balancing_cost.py` times the balancers alone.

Locust scenarios, `python -m loadtests.locust_run`: `locustfile_*.py` has one scenario each, `locust_verdict.py` what
makes a run fail. Behind the relay stand `fake_upstream.py`, which can misbehave on command, `streaming_upstream.py` and
`websocket_upstream.py`. How to run and read all of it: README.md.
"""
