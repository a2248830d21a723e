"""Relaygate's control plane: the only owner of SQL.

- `database.py` opens a database from its URL and gives transactions; `tables.py` says what is in it, `migrations/` make
  it so.
- `secrets.py` encrypts what must not lie readable in a table.
- `services/` has one noun a file: what can be asked of it and done to it. `services/edits.py` is the one transaction in
  which the configuration changes.
- `rules/` decides: values in, values out.

It imports from `proxy`, never the other way round.
"""
