"""The command line: what the data plane can do (`proxy/cli.py`), and what takes both planes or the control plane.

The data plane must start without the control plane's libraries, so what a command needs is imported when it runs.
"""

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proxy import cli
from proxy.config import Config

INTERRUPTED = 130
"""The exit status of what Ctrl-C ended, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. What stands in its way from outside is told in one line."""
    try:
        return cli.run_command(COMMANDS, argv)
    except KeyboardInterrupt:
        sys.stderr.write("relaygate: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # such as `keys list | head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes out at its end
        return 1
    except Exception as error:
        if not is_from_outside(error):
            raise
        sys.stderr.write(f"relaygate: {error}\n")
        return 1


def is_from_outside(error: Exception) -> bool:
    """Whether it says that the database is gone or busy, or that the secret key is another one.

    The modules of these errors are loaded if they were raised, and are not asked for.
    """
    database, secrets = sys.modules.get("admin.database"), sys.modules.get("proxy.secrets")
    if secrets is not None and isinstance(error, secrets.SecretError):
        return True
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


def import_apiproxy(options: cli.Options, load: Callable[[], Config]) -> int:
    return told(run("admin.imports", "apiproxy", load(), options["redis_url"], **of_import(options)))


def import_speedmimi(options: cli.Options, load: Callable[[], Config]) -> int:
    return told(run("admin.imports", "from_speedmimi", load(), Path(options["file"]), **of_import(options)))


def import_droid2api(options: cli.Options, load: Callable[[], Config]) -> int:
    given = {"replace": options["replace"], "dry_run": options["dry_run"]}
    return told(run("admin.key_imports", "from_droid2api", load(), options["file"], sys.stderr, **given))


def keys_import(options: cli.Options, load: Callable[[], Config]) -> int:
    text = importlib.import_module("admin.key_commands").given(options["file"], options["format"])
    return told(run("admin.key_commands", "import_keys", load(), text, options["group"], sys.stderr))


def keys_export(options: cli.Options, load: Callable[[], Config]) -> int:
    status = status_of(options["status"])
    run("admin.key_commands", "export_keys", load(), status, options["group"], sys.stdout.write)
    return 0


def keys_list(options: cli.Options, load: Callable[[], Config]) -> int:
    wanted = importlib.import_module("admin.rules.key_records").Wanted(status_of(options["status"]), options["group"])
    run("admin.key_commands", "list_keys", load(), wanted, sys.stdout.write)
    return 0


def keys_test(options: cli.Options, load: Callable[[], Config]) -> int:
    status: int = run("admin.key_commands", "test_keys", load(), options["ids"], sys.stdout.write, sys.stderr)
    return status


def ledger_verify(_options: cli.Options, load: Callable[[], Config]) -> int:
    status: int = run("admin.ledger_commands", "verify", load(), sys.stdout.write)
    return status


def ledger_export(options: cli.Options, load: Callable[[], Config]) -> int:
    run("admin.ledger_commands", "export", load(), options["token"], sys.stdout.write)
    return 0


def status_of(text: str) -> Any:
    return None if text == "all" else importlib.import_module("admin.rules.key_records").Status(text)


def of_import(options: cli.Options) -> dict[str, Any]:
    existing = importlib.import_module("admin.rules.additions").Existing
    return {"existing": existing.REPLACE if options["replace"] else existing.KEEP, "dry_run": options["dry_run"]}


def told(imported: Any) -> int:
    """Prints what an import did; returns its exit status."""
    sys.stdout.write(imported.text)
    sys.stderr.write("".join(f"relaygate: {line}\n" for line in imported.complaints))
    status: int = imported.status
    return status


def run(module: str, function: str, *arguments: Any, **options: Any) -> Any:
    """Runs a coroutine function of the control plane to its end."""
    return asyncio.run(getattr(importlib.import_module(module), function)(*arguments, **options))


def rotate_key(_options: cli.Options, load: Callable[[], Config]) -> int:
    sys.stdout.write(run("admin.commands", "rotate_key", load()) + "\n")
    return 0


def add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")


def add_import(command: argparse.ArgumentParser, replaced: str) -> None:
    add_dry_run(command)
    command.add_argument("--replace", action="store_true", help=f"take the imported {replaced}")


def add_apiproxy(command: argparse.ArgumentParser) -> None:
    command.add_argument("--redis-url", metavar="URL", required=True, help="the Redis that holds apiproxy:mappings")
    add_import(command, "target where a prefix has another")


def add_droid2api(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="droid2api's data/key_pool.json")
    add_dry_run(command)
    command.add_argument("--replace", action="store_true", help="take the imported settings where others were made")


def add_keys_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a list of keys: text, CSV or JSON; - for standard input")
    command.add_argument("--group", metavar="GROUP", help="pool group of keys that name none (default)")
    command.add_argument("--format", choices=("text", "json", "csv"), help="what the list is (seen by how it begins)")


def add_filters(command: argparse.ArgumentParser) -> None:
    statuses = ("all", "active", "disabled", "banned")
    command.add_argument("--status", choices=statuses, default="all", help="those of a status only (all)")
    command.add_argument("--group", metavar="GROUP", help="those of a pool group only")


def add_keys_test(command: argparse.ArgumentParser) -> None:
    command.add_argument("ids", metavar="ID", nargs="*", help="ids of keys (all that are not banned)")


def add_ledger_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("--token", metavar="ID", help="the rows of one access token only")


def add_speedmimi(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="SpeedMimi's config.yaml")
    add_import(command, "backends where an upstream has others, and upstream where a prefix leads elsewhere")


COMMANDS = {
    "serve": cli.Command("start everything that one machine needs, and keep it running", serve),
    **cli.COMMANDS,
    "admin": cli.Command("start the control plane", admin),
    "apply": cli.Command("make routes and upstreams what the file says; edits made otherwise stay", apply, add_dry_run),
    "export": cli.Command("print routes and upstreams as YAML", export),
    "import apiproxy": cli.Command("add the routes that an apiproxy keeps in its Redis", import_apiproxy, add_apiproxy),
    "import droid2api": cli.Command(
        "add the keys, groups and settings of a droid2api", import_droid2api, add_droid2api
    ),
    "import speedmimi": cli.Command(
        "add the backends and routes of a SpeedMimi's YAML", import_speedmimi, add_speedmimi
    ),
    "keys import": cli.Command("add keys to the key pool", keys_import, add_keys_import),
    "keys export": cli.Command("print keys whole, a line each", keys_export, add_filters),
    "keys list": cli.Command("print which keys there are, without their secrets", keys_list, add_filters),
    "keys test": cli.Command("ask upstreams whether keys are good", keys_test, add_keys_test),
    "ledger verify": cli.Command("prove that the ledger of access tokens adds up", ledger_verify),
    "ledger export": cli.Command("print the ledger of access tokens as CSV", ledger_export, add_ledger_export),
    "migrate": cli.Command("bring the database's tables up to date", migrate),
    "rotate-key": cli.Command("encrypt what is stored under a new secret key", rotate_key),
}
