"""The error of a store that cannot be asked, apart from what needs redis-py: workers without a Redis do not load it."""


class StoreUnavailable(Exception):  # noqa: N818 - it says what is the case
    """Redis did not do what it was asked in time, or was not even asked; whether it did it is not known.

    `reason` is one word, safe to print: `open` where it was not asked.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
