"""What `relaygate migrate`, `apply` and `export` do: work on the database, beside a control plane or without one.

What they change is published by the control plane within a second.
"""

import msgspec
import yaml

from admin import migrations, rotation, sources
from admin.control_plane import editor, looked_at, opened, secrets_of
from admin.data_directory import data_directory
from admin.database import Database
from admin.rules import route_specs, three_way, three_way_key_pool, three_way_upstreams
from admin.rules.three_way import Plan
from admin.services.edits import read_whole
from admin.services.routes import Routes
from proxy.config import Config, ConfigError, KeyPool


async def migrate(config: Config) -> list[str]:
    """Brings the tables up to date; returns the names of the revisions that were missing. Raises ConfigError."""
    if config.database.url is None:
        data_directory(config)
    async with looked_at(config) as database:
        return await migrations.migrate(database)


async def apply(config: Config, *, dry_run: bool) -> str:
    """Makes routes, upstreams and key pool what the settings say; returns the difference, a line each.

    Raises ConfigError. A dry run leaves the database as it is; where there is none yet, all routes would be new.
    """
    if dry_run:
        plan = await planned(config)
    else:
        async with opened(config) as database:
            routes = Routes(editor(config, database))
            plan = await sources.apply_file(config.routes, routes, config.key_pool, config.upstreams)
    return "".join(f"{line}\n" for line in plan.lines()) or "nothing changes\n"


async def rotate_key(config: Config) -> str:
    """Puts a new secret key in the place of the old one; returns what was done. Raises ConfigError, DatabaseDown."""
    async with opened(config) as database:
        return await rotation.rotate(database, secrets_of(config))


async def planned(config: Config) -> Plan:
    """What `apply` would do."""
    async with looked_at(config) as database:
        if not await there(database):
            return msgspec.structs.replace(
                three_way.plan({}, config.routes, None),
                key_pool=three_way_key_pool.plan(KeyPool(), config.key_pool, None),
                upstreams=three_way_upstreams.plan({}, config.upstreams, None, config.routes),
            )
        return await Routes(editor(config, database)).plan(config.routes, config.key_pool, config.upstreams)


async def there(database: Database) -> bool:
    """Whether the database has tables. Raises ConfigError where they are not those of this program."""
    missing = await migrations.missing(database)
    if missing == migrations.known():
        return False
    if missing:
        steps = ", ".join(missing)
        raise ConfigError("database", database.place, f"steps are missing ({steps}), which `relaygate migrate` makes")
    return True


async def export(config: Config) -> str:
    """Returns the key pool's settings, the upstreams and the routes as YAML that `apply` takes.

    The database stays as it is. Raises ConfigError where there is none: an empty file would pass for what was wanted.
    """
    async with looked_at(config) as database:
        if not await there(database):
            raise ConfigError("database", database.place, "there is none yet, so there is nothing to export")
        async with database.read() as connection:
            whole = await read_whole(connection)
    plain = {prefix: route_specs.plain(route) for prefix, route in sorted(whole.routes.items())}
    short = {prefix: spec["target"] if spec.keys() == {"target"} else spec for prefix, spec in plain.items()}
    settings = {"key_pool": spec} if (spec := route_specs.plain(whole.key_pool)) else {}
    if whole.upstreams:
        settings["upstreams"] = {name: route_specs.plain(one) for name, one in sorted(whole.upstreams.items())}
    exported = msgspec.to_builtins({**settings, "routes": short})
    return yaml.safe_dump(exported, sort_keys=False, allow_unicode=True)
