"""The command line: what the data plane can do (`proxy/cli.py`), and what takes both planes or the control plane.

The data plane must start without the control plane's libraries, so what a command needs is imported when it runs.
"""

import argparse
import asyncio
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from proxy import cli
from proxy.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. A database that does not answer is told in one line."""
    try:
        return cli.run_command(COMMANDS, argv)
    except Exception as error:
        if not of_the_database(error):
            raise
        sys.stderr.write(f"relaygate: {error}\n")
        return 1


def of_the_database(error: Exception) -> bool:
    """Whether it says that the database is gone or busy. Its module is loaded if it raised that, and not asked for."""
    database = sys.modules.get("admin.database")
    return database is not None and isinstance(error, database.DatabaseDown | database.TransactionLost)


def serve(options: cli.Options, load: Callable[[], Config]) -> int:
    status: int = run("admin.supervisor", "supervise", load(), cli.given(options))
    return status


def admin(_options: cli.Options, load: Callable[[], Config]) -> int:
    status: int = importlib.import_module("admin.control_plane").run(load)
    return status


def migrate(_options: cli.Options, load: Callable[[], Config]) -> int:
    for revision in run("admin.commands", "migrate", load()):
        sys.stdout.write(f"applied {revision}\n")
    return 0


def apply(options: cli.Options, load: Callable[[], Config]) -> int:
    sys.stdout.write(run("admin.commands", "apply", load(), dry_run=options["dry_run"]))
    return 0


def export(_options: cli.Options, load: Callable[[], Config]) -> int:
    sys.stdout.write(run("admin.commands", "export", load()))
    return 0


def run(module: str, function: str, *arguments: Any, **options: Any) -> Any:
    """Runs a coroutine function of the control plane to its end."""
    return asyncio.run(getattr(importlib.import_module(module), function)(*arguments, **options))


def add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")


COMMANDS = {
    "serve": cli.Command("start everything that one machine needs, and keep it running", serve),
    **cli.COMMANDS,
    "admin": cli.Command("start the control plane", admin),
    "apply": cli.Command("make the routes what the file says; edits made otherwise stay", apply, add_dry_run),
    "export": cli.Command("print the routes as YAML", export),
    "migrate": cli.Command("bring the database's tables up to date", migrate),
}
