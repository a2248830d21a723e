"""What a service says no to. Each is answered differently by whoever asked."""


class DuplicateRoute(Exception):  # noqa: N818 - it says what is there
    """A route of this prefix is there already."""


class NoSuchRoute(Exception):  # noqa: N818 - it says what is not there
    """No route has this prefix."""


class NoSuchVersion(Exception):  # noqa: N818 - it says what is not there
    """No version of the configuration has this number."""


class DuplicateCredential(Exception):  # noqa: N818 - it says what is there
    """A credential with this secret is there already. Its text is the id of that one."""


class NoSuchCredential(Exception):  # noqa: N818 - it says what is not there
    """No credential has this id."""


class InvalidCredential(Exception):  # noqa: N818 - it says what is wrong
    """A credential that cannot be used, and why; without its secret."""


class DuplicateGroup(Exception):  # noqa: N818 - it says what is there
    """A group of this id is there already."""


class NoSuchGroup(Exception):  # noqa: N818 - it says what is not there
    """The key pool has no group of this id."""
