"""The phases of a request, one file each: read the exchange, ask a rule, write the exchange."""
