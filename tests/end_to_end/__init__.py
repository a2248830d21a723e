"""The real relay between real clients and a real upstream: every row of the gateway checklist, by theme.

`relay_process.py` starts `relaygate proxy`; `raw_client.py` speaks HTTP in bytes; `conftest.py` wires them to the fake
upstream. A test's name carries its row (`test_c14_…`). All tests share one relay where its configuration allows, and
each reads only those of the upstream's records that came after its own start.
"""
