"""The command line of the data plane, `relaygate proxy | check`, to which `admin/cli.py` adds the rest.

It parses options and prints; what they mean is in settings.py. The server is imported when it is to run: the supervisor
of `relaygate serve` does without it, 7 MB and 0.1 s. Exit status: 0 done, 1 failed while running, 2 refused (one line
on stderr says why).
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from proxy import settings
from proxy.config import Access, Config, ConfigError, Route, leads_to, warnings_of
from proxy.rules.tiers import unknown_groups
from proxy.sources import structs
from proxy.version import VERSION

OPTIONS = ("config", "host", "port", "workers", "log_level")
_EPILOG = (
    "Options are stronger than the environment (RELAYGATE_PORT, RELAYGATE_WORKERS, ... for every key of `server:`), "
    "that is stronger than .env, that is stronger than the YAML file."
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other refusal does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"relaygate: command line: {message} (see {self.prog} --help)\n")


Options = dict[str, Any]
Run = Callable[[Options, Callable[[], Config]], int]
"""What a command does: takes its options and what loads the settings, and returns the exit status."""


class Command(NamedTuple):
    """A word of the command line, or two (`import apiproxy`). `add` adds options to those that each command has."""

    text: str
    run: Run
    add: Callable[[argparse.ArgumentParser], object] = lambda _: None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command of the data plane; returns the exit status."""
    return run_command(COMMANDS, argv)


def run_command(commands: Mapping[str, Command], argv: Sequence[str] | None) -> int:
    """Runs one of `commands`; returns the exit status. What a command refuses is told in one line."""
    options = vars(parser(commands).parse_args(argv))
    arguments = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    load = partial(settings.load, arguments, dict(os.environ), Path.cwd())
    try:
        return commands[options["command"]].run(options, load)
    except ConfigError as error:
        sys.stderr.write(f"relaygate: {error}\n")
        return 2


def given(options: Options) -> list[str]:
    """Returns the words of the command line that name the settings, for another process to get the same."""
    words = []
    for name in OPTIONS:
        if options.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    return words


def start(_options: Options, load: Callable[[], Config]) -> int:
    config = load()
    if config.server.stats_path is not None and config.redis.url is None:
        raise ConfigError(
            "server.stats_path", "its figures come through Redis, expected redis.url or `relaygate serve`"
        )
    if config.redis.url is None and config.access.api_key is None:
        for prefix, route in config.routes.items():
            if route.access is Access.TOKEN:
                problem = "tokens are checked in Redis, expected redis.url, access.api_key or `relaygate serve`"
                raise ConfigError(f"routes.{prefix}.access", problem)
    status: int = importlib.import_module("proxy.server").run(config, load)
    return status


def check(_options: Options, load: Callable[[], Config]) -> int:
    config = load()
    sys.stdout.write(report(config))
    for warning in warnings_of(config.routes, config.upstreams, config.credentials):
        sys.stderr.write(f"relaygate: warning: {warning}\n")
    return 0


def report(config: Config) -> str:
    """The listener, the routes as an aligned table (prefix, target, what differs from the defaults), their number.

    Before that are lines about upstreams, and about pool groups that routes name and the settings do not: the admin API
    may have made them.
    """
    rows = [("PREFIX", "TARGET", "OPTIONS")]
    rows += [(prefix, *target_and_options(route)) for prefix, route in sorted(config.routes.items())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    table = [f"{prefix:<{widths[0]}}  {target:<{widths[1]}}  {options}".rstrip() for prefix, target, options in rows]
    upstreams = [
        f"upstream {name}: {', '.join(f'{one.id} {one.url}' for one in upstream.backends) or 'no backends'}"
        for name, upstream in sorted(config.upstreams.items())
    ]
    notes = [
        f"{prefix}: pool group {group} is not in key_pool.groups; until it is made elsewhere, it has no keys"
        for prefix, route in sorted(config.routes.items())
        for group in unknown_groups(route.pool_groups, config.key_pool.groups)
    ]
    count = len(config.routes)
    return "\n".join(
        [f"listen: {_url(config)}", *table, *upstreams, *notes, f"{count} route{'' if count == 1 else 's'} ok", ""]
    )


def _url(config: Config) -> str:
    scheme = "http" if config.tls is None else "https"
    host = config.server.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def target_and_options(route: Route) -> tuple[str, str]:
    """Where a route leads, and what else differs from the defaults."""
    return leads_to(route), notable(msgspec.structs.replace(route, target="", upstream=None, base=""))


def notable(struct: msgspec.Struct, path: str = "") -> str:
    """The fields that differ from their defaults, as `name=value`."""
    words = []
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            words.append(notable(value, f"{path}{field.name}."))
        elif value != field.default:
            words.append(f"{path}{field.name}={structs.shown(value)}")
    return " ".join(filter(None, words))


def parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Returns what parses a command line with these commands."""
    parser = _Parser(prog="relaygate", description="A byte-for-byte streaming relay for HTTP APIs.")
    parser.add_argument("--version", action="version", version=f"relaygate {VERSION}")
    words = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    groups = {"": words}
    for name, (text, _, add) in commands.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            of_group = words.add_parser(group, help=f"see relaygate {group} --help", allow_abbrev=False)
            groups[group] = of_group.add_subparsers(dest="command", required=True, metavar="WHAT")
        command = groups[group].add_parser(word, help=text, description=text, epilog=_EPILOG, allow_abbrev=False)
        command.set_defaults(command=name)
        command.add_argument("--config", metavar="FILE", help="YAML file (./relaygate.yaml, if there is one)")
        command.add_argument("--host", help="IP address to listen on (127.0.0.1)")
        command.add_argument("--port", help="port to listen on (8000)")
        command.add_argument("--workers", help="worker processes (1)")
        command.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (info)")
        add(command)
    return parser


COMMANDS = {
    "proxy": Command("start the data plane", start),
    "check": Command("validate the settings and print the routes, without starting anything", check),
}
