"""What can be asked of the control plane and done to it, one noun a file.

A service is made once, of a `Database` and what else it needs, and shared by all who ask. Times that it returns are
milliseconds since 1970 (UTC). Every method raises DatabaseDown when the database cannot be reached.
"""
