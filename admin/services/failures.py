"""What a service says no to. Each is answered differently by whoever asked."""


class DuplicateRoute(Exception):  # noqa: N818 - it says what is there
    """A route of this prefix is there already."""


class NoSuchRoute(Exception):  # noqa: N818 - it says what is not there
    """No route has this prefix."""


class NoSuchVersion(Exception):  # noqa: N818 - it says what is not there
    """No version of the configuration has this number."""


class DuplicateKey(Exception):  # noqa: N818 - it says what is there
    """A credential of this secret is there already."""


class NoSuchKey(Exception):  # noqa: N818 - it says what is not there
    """No credential has this id."""


class DuplicateGroup(Exception):  # noqa: N818 - it says what is there
    """A pool group of this id is there already."""


class NoSuchGroup(Exception):  # noqa: N818 - it says what is not there
    """No pool group has this id."""


class GroupInUse(Exception):  # noqa: N818 - it says what is there
    """The group cannot be deleted: it is `default`, or a route names it. Its text says which."""


class NoRouteForKey(Exception):  # noqa: N818 - it says what is not there
    """No route may use this key, so there is no upstream to test it with."""


class TestsRunning(Exception):  # noqa: N818 - it says what happens
    """All keys are being tested already."""


class NoBalanceQuery(Exception):  # noqa: N818 - it says what is not there
    """The settings name no balance query."""


class SyncRunning(Exception):  # noqa: N818 - it says what happens
    """Balances are being read already."""


class WorkersNotAsked(Exception):  # noqa: N818 - it says what is not there
    """Redis cannot be reached, through which workers are asked."""


class TooManyListeners(Exception):  # noqa: N818 - it says what is there
    """As many listen to the live log as may."""


class InvalidCredential(Exception):  # noqa: N818 - it says what is wrong
    """A credential that cannot be used, and why; without its secret."""


class NoCertificate(Exception):  # noqa: N818 - it says what is not there
    """The listener has no certificate, so there is none to load again."""


class NoSuchToken(Exception):  # noqa: N818 - it says what is not there
    """No access token has this id."""


class CounterAway(Exception):  # noqa: N818 - it says what is not there
    """Redis, which has the counters of quotas, cannot be asked, or does not have this one yet."""


class QuotaTooLarge(Exception):  # noqa: N818 - it says what would be
    """A quota would be more than can be counted."""


class NoSuchUpstream(Exception):  # noqa: N818 - it says what is not there
    """No upstream has this name."""


class NoSuchBackend(Exception):  # noqa: N818 - it says what is not there
    """No backend of the upstream has this id."""


class DuplicateBackend(Exception):  # noqa: N818 - it says what is there
    """A backend of this id or this URL is in the upstream already."""
