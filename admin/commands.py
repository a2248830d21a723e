"""What `relaygate migrate`, `apply` and `export` do: work on the database, beside a control plane or without one.

What they change is published by the control plane within a second.
"""

import msgspec
import yaml

from admin import migrations, sources
from admin.control_plane import editor, opened
from admin.rules import route_specs
from admin.services.routes import Routes
from admin.services.settings import Settings
from proxy.config import Config


async def migrate(config: Config) -> list[str]:
    """Brings the tables up to date; returns the names of the revisions that were missing. Raises ConfigError."""
    async with opened(config) as database:
        return await migrations.migrate(database)


async def apply(config: Config, *, dry_run: bool) -> str:
    """Makes the routes what the settings say; returns the difference, a line each. Raises ConfigError."""
    async with opened(config) as database:
        await migrations.migrate(database)
        settings = Settings(database)
        routes = Routes(editor(config, database))
        if dry_run:
            plan = await routes.plan(config.routes, await sources.last_applied(settings))
        else:
            plan = await sources.apply_file(config.routes, routes, settings)
    return "".join(f"{line}\n" for line in plan.lines()) or "nothing changes\n"


async def export(config: Config) -> str:
    """Returns the routes as YAML that `apply` takes."""
    async with opened(config) as database:
        await migrations.migrate(database)
        routes = await Routes(editor(config, database)).all()
    plain = {prefix: route_specs.plain(route) for prefix, route in sorted(routes.items())}
    short = {prefix: spec["target"] if spec.keys() == {"target"} else spec for prefix, spec in plain.items()}
    return yaml.safe_dump({"routes": msgspec.to_builtins(short)}, sort_keys=False, allow_unicode=True)
