"""What `relaygate keys import`, `export`, `list` and `test` do: work on the database, as `commands.py` does.

Workers hear of what changed within a second, from the control plane. Secrets are printed by `export` alone.
"""

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TextIO

from redis.exceptions import RedisError

from admin.control_plane import editor, now_ms, opened
from admin.data_directory import data_directory
from admin.database import Database
from admin.key_ports import KeyRecord
from admin.key_tests import KeyTests, Tested
from admin.progress import Progress
from admin.rules import key_lists
from admin.rules.key_lists import InvalidLine
from admin.rules.key_records import LineOutcome, Position, Status, TestResult, Wanted, percent
from admin.services.credential_bans import KnownBans, NoWorkers, SharedBans
from admin.services.credentials import Credentials
from admin.services.failures import NoRouteForKey, NoSuchKey
from admin.services.key_pool import KeyPoolSettings
from admin.services.routes import Routes
from admin.upstream_calls import UpstreamCalls
from proxy.config import Config, ConfigError
from proxy.rules.tiers import unknown_groups
from proxy.secrets import KEY_FILE, load_secrets
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client, connect
from proxy.shared_state.embedded import EmbeddedRedis

PAGE = 1000
COLUMNS = ("ID", "KEY", "PROVIDER", "GROUP", "STATUS", "REQUESTS", "SUCCESS", "NOTES")
NOTES_SHOWN = 40
LINE, ENTRY = "line", "entry"
"""What the keys of a list are numbered by; the entries of JSON have lines of their own."""


class Done(NamedTuple):
    """What to print on standard output and, a line each, on standard error; and the exit status."""

    text: str
    complaints: list[str]
    status: int


@asynccontextmanager
async def credentials_of(config: Config, bans: KnownBans | None = None) -> AsyncIterator[tuple[Database, Credentials]]:
    """The keys of the settings' database, which is made if need be. Raises ConfigError, DatabaseDown."""
    async with opened(config) as database:
        secrets = load_secrets(os.environ, data_directory(config) / KEY_FILE)
        yield database, Credentials(database, secrets, now_ms, bans)


@asynccontextmanager
async def known_bans(config: Config) -> AsyncIterator[KnownBans]:
    """The bans in the Redis that the settings name, or in that of the `relaygate serve` that runs on the same data."""
    url = config.redis.url or EmbeddedRedis(data_directory(config) / "redis").url
    client = connect(url)
    try:
        if config.redis.url is None and not await _answers(client):
            yield NoWorkers()
        else:
            yield SharedBans(client, Guard(client, Breaker()))
    finally:
        await client.aclose()


async def _answers(client: Client) -> bool:
    try:
        await Guard(client, Breaker()).call(client.ping)
    except (StoreUnavailable, RedisError):
        return False
    return True


async def import_keys(config: Config, text: str, group: str | None, stream: TextIO) -> Done:
    """Adds the keys of a list; what cannot be used is told by line, and makes the exit status 1.

    Raises ConfigError for a group that there is not.
    """
    keys = key_lists.read(text, group)
    async with credentials_of(config) as (database, credentials):
        groups = (await KeyPoolSettings(editor(config, database)).current()).groups
        if group is not None and unknown_groups([group], groups):  # else each line would be told of
            raise ConfigError("command line", f"--group: there is no pool group {group!r}")
        return await added(credentials, keys, stream, ENTRY if is_json(text) else LINE)


async def added(credentials: Credentials, keys: Sequence[key_lists.Read], stream: TextIO, place: str) -> Done:
    """Adds keys; returns how many of them, and what is wrong with the others. `place` is what they are numbered by."""
    progress = Progress(stream, "keys", len(keys))
    try:
        results = await credentials.create_many(keys=keys, actor="import", progress=progress.tell)
    finally:
        progress.end()
    counts = Counter(result.outcome for result in results)
    shown = {one.line: one.masked for one in keys if isinstance(one, InvalidLine)}
    complaints = [
        complaint(InvalidLine(one.line, shown.get(one.line, ""), one.problem or ""), place)
        for one in results
        if one.outcome is LineOutcome.INVALID
    ]
    text = f"added {counts[LineOutcome.ADDED]}, there already {counts[LineOutcome.DUPLICATE]}\n"
    return Done(text, complaints, 1 if complaints else 0)


def complaint(one: InvalidLine, place: str) -> str:
    """Which key is not added, and why."""
    return f"not imported: {place} {one.line}: {f'{one.masked}: ' if one.masked else ''}{one.reason}"


async def export_keys(config: Config, status: Status | None, group: str | None, write: Callable[[str], object]) -> None:
    """Writes the secrets of keys, a line each."""
    async with credentials_of(config) as (_, credentials):
        async for one in credentials.exported(status=status, group=group):
            write(f"{one.secret}\n")


async def list_keys(config: Config, wanted: Wanted, write: Callable[[str], object]) -> None:
    """Writes a table of keys, a page at a time."""
    async with credentials_of(config) as (_, credentials):
        write(row(COLUMNS))
        async for record in all_of(credentials, wanted):
            write(row(cells(record)))


async def test_keys(config: Config, ids: Sequence[str], write: Callable[[str], object], stream: TextIO) -> int:
    """Tests keys, all without ids; writes those that did not pass, and how many did. Raises ConfigError.

    Returns the exit status: 1 where some did not pass. Workers hear of bans where there is a Redis; where there is
    none, nobody is banned, which `stream` is told.
    """

    def told(record: KeyRecord, tested: Tested) -> None:
        counts[tested.result] += 1
        statuses[tested.key_status] += 1
        if tested.result is not TestResult.SUCCESS:
            progress.end()
            kept = isinstance(bans, NoWorkers) and tested.key_status is Status.BANNED
            write(f"{record.id} {record.masked} {tested.problem}, {record.status if kept else tested.key_status}\n")
        progress.tell(counts.total())

    counts: Counter[TestResult] = Counter()
    statuses: Counter[Status] = Counter()
    async with known_bans(config) as bans, credentials_of(config, bans) as (database, credentials):
        total = len(ids) or await credentials.count(wanted=Wanted())
        progress = Progress(stream, "keys", total)
        edits = editor(config, database)
        calls = UpstreamCalls(allow_private_targets=config.server.allow_private_targets)
        tests = KeyTests(credentials, KeyPoolSettings(edits), Routes(edits).all, calls, told=told)
        try:
            state = await (some(tests, ids) if ids else all_keys(tests))
        finally:
            progress.end()
            await tests.close()
    write(f"{counts[TestResult.SUCCESS]} good, {counts[TestResult.FAILED]} not\n")
    if isinstance(bans, NoWorkers) and statuses[Status.BANNED]:
        stream.write(
            f"relaygate: {statuses[Status.BANNED]} to be banned are not, since no worker could be told: redis.url is "
            f"not set, and no relaygate serve runs in {data_directory(config)}\n"
        )
    return 1 if counts[TestResult.FAILED] or state == "failed" else 0


async def some(tests: KeyTests, ids: Sequence[str]) -> str:
    for name in ids:
        try:
            await tests.test(id=name)
        except NoSuchKey:
            raise ConfigError("command line", f"there is no key {name}") from None
        except NoRouteForKey:
            raise ConfigError("command line", f"no route may use key {name}") from None
    return "done"


async def all_keys(tests: KeyTests) -> str:
    await tests.start()
    return (await tests.ended()).state


async def all_of(credentials: Credentials, wanted: Wanted) -> AsyncIterator[KeyRecord]:
    after: Position | None = None
    while page := await credentials.list(wanted=wanted, limit=PAGE, after=after):
        for record in page:
            yield record
        after = Position(page[-1].created_at, page[-1].id)


def cells(record: KeyRecord) -> tuple[str, ...]:
    notes = "".join(char if char.isprintable() else " " for char in record.notes)
    rate = f"{percent(record.successes, record.requests):.0f}%" if record.requests else "-"
    return (
        record.id,
        record.masked,
        record.provider,
        record.group,
        record.status,
        str(record.requests),
        rate,
        notes[:NOTES_SHOWN],
    )


def row(texts: Sequence[str]) -> str:
    """A line of the table. Columns are wide enough for what is usual, since not all rows are known yet."""
    widths = (24, 12, 11, 12, 9, 9, 8, 0)
    return "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True)).rstrip() + "\n"


def given(file: str, form: str | None) -> str:
    """The text of a list: of a file, or of standard input for `-`. Raises ConfigError."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else open_bytes(file)
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(file, "not UTF-8 text") from None
    if (form == "json") != is_json(text) and form is not None:
        raise ConfigError(file, f"not {form}, by how it begins")
    return text


def is_json(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n")[:1] in ("[", "{")


def open_bytes(file: str) -> bytes:
    try:
        with open(file, "rb") as opened_file:  # noqa: PTH123 - it may be a pipe
            return opened_file.read()
    except OSError as error:
        raise ConfigError(file, error.strerror or type(error).__name__) from None
