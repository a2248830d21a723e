"""Relaygate's control plane, the HTTP side. The map of the package, in the order of a request.

- `app.py` makes the Litestar application; `server.py` runs it, as one process of low priority.
- `auth.py` says who may: the admin token, or a session (`sessions.py`). `context.py` hands endpoints what they need,
  and records what they do.
- `endpoints/` has one noun a file. `request_bodies.py` reads what they are sent, `answers.py` is the table of what they
  refuse, `readiness.py` asks the components how they are.
- `rules/` decides: values in, values out.
- `ports.py` is what all this asks of the SQL side.

`admin` imports from `proxy`, never the other way.
"""
