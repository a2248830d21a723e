"""What `relaygate import droid2api` does: takes over reference 001's key pool, with its groups and settings."""

from typing import TextIO

from admin.commands import there
from admin.control_plane import editor, looked_at
from admin.key_commands import ENTRY, Done, added, complaint, credentials_of, open_bytes
from admin.rules import droid2api
from admin.rules.key_lists import InvalidLine
from admin.services.key_pool import KeyPoolSettings
from proxy.config import Config, ConfigError, KeyPool

ACTOR = "import"


async def from_droid2api(config: Config, file: str, stream: TextIO, *, replace: bool, dry_run: bool) -> Done:
    """Imports groups and settings as one edit, then the keys. Raises ConfigError, DatabaseDown.

    Keys that are there already stay as they are. What is not taken over is told, and makes the exit status 1.
    """
    try:
        found = droid2api.read(file, open_bytes(file).decode())
    except UnicodeDecodeError:
        raise ConfigError(file, "not UTF-8 text") from None
    if dry_run:
        merged = droid2api.merged(await _current(config), found, replace=replace)
        invalid = [complaint(one, ENTRY) for one in found.keys if isinstance(one, InvalidLine)]
        lines = [*merged.lines, f"+ up to {droid2api.usable(found.keys)} keys"]
        return _told(lines, "", found.problems, invalid)
    async with credentials_of(config) as (database, credentials):
        pools = KeyPoolSettings(editor(config, database))
        merged = droid2api.merged(await pools.current(), found, replace=replace)
        if merged.pool != await pools.current():
            await pools.update(change=lambda pool: droid2api.merged(pool, found, replace=replace).pool, actor=ACTOR)
        done = await added(credentials, found.keys, stream, ENTRY)
    told = _told(merged.lines, done.text, found.problems, [])
    return Done(told.text, told.complaints + done.complaints, max(told.status, done.status))


async def _current(config: Config) -> KeyPool:
    """The settings as they are, where there is a database at all."""
    async with looked_at(config) as database:
        return await KeyPoolSettings(editor(config, database)).current() if await there(database) else KeyPool()


def _told(lines: list[str], text: str, problems: list[str], invalid: list[str]) -> Done:
    complaints = problems + invalid
    return Done("".join(f"{line}\n" for line in lines) + text, complaints, 1 if complaints else 0)
