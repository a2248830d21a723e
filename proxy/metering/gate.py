"""What a worker's routes with `access: token` share: who is let in, and how often wrong tokens may be tried."""

from proxy.config import Config, Estimates, Prices
from proxy.metering.meter import Decider, Meter
from proxy.metering.outages import Outages
from proxy.rules.access_tokens import digest_of
from proxy.rules.attempts import Attempts
from proxy.rules.prices import table


class Gate:
    """One for each worker. `meter` is None where no Redis is named."""

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self.api_key_digest = ""
        """Of the token of the settings; empty: there is none."""
        self.attempts = Attempts()
        self.outages = Outages()
        self.prices = table(Prices())
        self.estimates = Estimates()
        self._wrong_tokens_max = 0

    def share(self, store: Decider, worker: str) -> Meter:
        """Has what is counted decided by Redis from now on. To be called in the worker's loop."""
        self.meter = Meter(store, worker)
        return self.meter

    def use(self, config: Config) -> None:
        """Takes what a configuration says of it. Wrong tokens of before count on."""
        settings = config.access
        self.api_key_digest = "" if settings.api_key is None else digest_of(settings.api_key.encode())
        if settings.wrong_tokens_max != self._wrong_tokens_max:
            self._wrong_tokens_max = settings.wrong_tokens_max
            self.attempts = Attempts(settings.wrong_tokens_max, in_all=None)
        self.outages.requests_max = settings.outage_requests_max
        self.prices, self.estimates = table(config.prices), config.estimates
