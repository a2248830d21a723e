"""What `relaygate import` does: takes over the routes and upstreams of another program, as one edit.

An entry that cannot be used does not keep the others from being imported: whoever moves 500 mappings wants 499 of them
now, and may run the command again, which changes nothing that is done. But it is named on standard error, and the exit
status is 1, so that a script notices that not all has come over. A route that is there already with another target, or
an upstream with other backends, is no failure; it is kept and said, unless it is to be replaced.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from redis.exceptions import RedisError

from admin.commands import there
from admin.control_plane import editor, looked_at, opened, refuse_private, validate
from admin.rules import additions, route_specs, speedmimi
from admin.rules.additions import Additions, Existing, Wanted
from admin.services.routes import Routes
from proxy.config import Config, ConfigError, Route
from proxy.shared_state.breaker import unavailable_reason
from proxy.shared_state.client import Client, connect
from proxy.sources import yaml_document

ACTOR = "import"
KEY = "apiproxy:mappings"
"""Reference 003's hash: prefix -> target."""
READ_S = 10.0
"""How long Redis may take to answer. Somebody waits for it, and nothing else does."""


class Imported(NamedTuple):
    """What to print on standard output and, a line each, on standard error; and the exit status."""

    text: str
    complaints: list[str]
    status: int


async def apiproxy(config: Config, redis_url: str, existing: Existing, *, dry_run: bool) -> Imported:
    """Imports the mappings of reference 003 from its Redis, which is only read. Raises ConfigError, DatabaseDown."""
    routes, problems = {}, []
    for prefix, target in (await _mappings(redis_url)).items():
        try:
            routes[prefix.decode()] = Route(target=target.decode())
        except UnicodeError:
            problems.append(f"{prefix!a}: not UTF-8 text")
    return await _add(config, Wanted(routes), problems, existing, dry_run=dry_run)


async def from_speedmimi(config: Config, file: Path, existing: Existing, *, dry_run: bool) -> Imported:
    """Imports backends and routing of reference 004 from its YAML, and says what to put into `relaygate.yaml`.

    Raises ConfigError, DatabaseDown.
    """
    document = yaml_document.parse(_text(file), str(file))
    found = speedmimi.read(str(file), document, partial(refuse_private, config.server))
    wanted = Wanted(found.routes, found.upstreams, found.partial)
    imported = await _add(config, wanted, found.problems, existing, dry_run=dry_run)
    ignored = [f"{key}: ignored, it has no counterpart" for key in found.ignored]
    text = imported.text
    if found.settings:
        text += "\n# for relaygate.yaml:\n" + yaml.safe_dump(found.settings, sort_keys=False, allow_unicode=True)
    return Imported(text, [*imported.complaints, *ignored], imported.status)


async def _add(config: Config, wanted: Wanted, problems: list[str], existing: Existing, *, dry_run: bool) -> Imported:
    """Adds the upstreams, and what can be used of the routes."""
    usable: dict[str, Route] = {}
    for prefix, route in sorted(wanted.routes.items()):
        try:
            ((name, checked),) = route_specs.checked({prefix: route}).items()
            if name in usable:
                raise ConfigError(f"routes.{prefix}", f"the same prefix as {name}")  # noqa: TRY301 - told below
            used = {route.upstream: wanted.upstreams[route.upstream]} if route.upstream is not None else {}
            validate(config, {name: checked}, used)
        except ConfigError as error:
            problems.append(str(error))
        else:
            usable[name] = checked
    wanted = wanted._replace(routes=usable)
    if dry_run:
        done = await _planned(config, wanted, existing)
    else:
        async with opened(config) as database:
            done = await Routes(editor(config, database)).add(wanted, existing, ACTOR)
    text = "".join(f"{line}\n" for line in done.lines()) or "nothing changes\n"
    return Imported(text, [f"not imported: {problem}" for problem in problems], 1 if problems else 0)


async def _planned(config: Config, wanted: Wanted, existing: Existing) -> Additions:
    async with looked_at(config) as database:
        if not await there(database):
            return additions.additions({}, {}, wanted, existing)
        return await Routes(editor(config, database)).additions(wanted, existing)


async def _mappings(url: str) -> dict[bytes, bytes]:
    """The whole hash. Raises ConfigError where it cannot be read, or there is none."""
    client = connect(url, deadline_s=READ_S)
    try:
        found = await _hgetall(client)
    except Exception as error:
        reason = unavailable_reason(error)
        if reason is None and not isinstance(error, RedisError):
            raise
        raise ConfigError("redis", f"{KEY} cannot be read: {reason or error}") from None
    finally:
        await client.aclose()
    if not found:
        raise ConfigError("redis", f"there is no hash {KEY}, or it is empty: nothing to import")
    return found


async def _hgetall(client: Client) -> dict[bytes, bytes]:
    answer: Any = await client.hgetall(KEY)  # type: ignore[misc,unused-ignore]
    return dict(answer)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(file), error.strerror or type(error).__name__) from None
    except UnicodeError:
        raise ConfigError(str(file), "not UTF-8 text") from None
