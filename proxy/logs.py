"""The log of every process: lines on standard error."""

import logging
import sys


def start(level: str) -> None:
    """Has what is as grave as `level` (`debug`, `info`, `warning`, `error`) written, one line each."""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
