"""How many requests may be sent to another backend, so that retries cannot double a storm.

A backend that dies takes all requests with it that it was answering, at once; each of them may go out again. So there
are as many retries at hand as requests are running (a fixed number would do for few, or be too many for others; a share
of what came lately would be too few for what has been running long). What was used of them is paid back by requests, a
share of a retry each. Where everything fails, that is all there is: of 1,000 requests a second then 200 go out again,
and not each two or three times, which is what keeps an upstream down that is overloaded.
"""

RETRIES_AT_LEAST = 10
"""At hand where hardly anything runs: one that a lone client needs must not be refused."""


class RetryBudget:
    """The retries of one upstream in one worker. `share` of a retry is what a request pays back; 0: no retries at all.

    In any span of time there are no more than `share` of the requests, and as many as were running at its busiest
    moment (10 at least), and one.
    """

    __slots__ = ("owed", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self.owed = 0.0

    def request(self) -> None:
        """Takes that a request was sent for the first time: what is sent again pays for nothing."""
        if self.owed:
            self.owed = max(self.owed - self.share, 0.0)

    def take(self, running: int) -> bool:
        """Takes one retry; tells whether there was one.

        `running` are the requests that have not been answered, with the one that is to be sent again and all others
        that have failed at this moment.
        """
        if not self.share or self.owed >= max(running, RETRIES_AT_LEAST):
            return False
        self.owed += 1.0
        return True
