"""Tests mirror the tree: `tests/proxy/rules/test_x.py` tests `proxy/rules/x.py`; `end_to_end` starts the real thing."""
