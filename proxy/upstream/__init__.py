"""The upstream side: connections, their pool, and how they are made.

`connection.py` is one HTTP/1.1 connection, one exchange at a time. `pool.py` decides which connection a request gets
and what becomes of it afterwards. `connect.py` turns a name into a connected connection; `tls.py` says what an https
upstream must prove.
"""
