"""What a service says no to. Each is answered differently by whoever asked."""


class DuplicateRoute(Exception):  # noqa: N818 - it says what is there
    """A route of this prefix is there already."""


class NoSuchRoute(Exception):  # noqa: N818 - it says what is not there
    """No route has this prefix."""


class NoSuchVersion(Exception):  # noqa: N818 - it says what is not there
    """No version of the configuration has this number."""
