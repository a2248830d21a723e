"""The log of actions: appended to, and read newest first."""

from itertools import count

from admin.database import Database
from admin.services.actions import TARGET_LENGTH_MAX, Action, Actions
from tests.sql_servers import with_database


async def fill(actions: Actions, lines: int) -> None:
    for number in range(lines):
        await actions.append(
            actor=f"token {number % 2}",
            address="::1",
            action="create" if number < 5 else "delete",
            target=f"/{number}",
            detail={"number": number},
            outcome="ok",
        )


def test_a_line_comes_back(database_url: str) -> None:
    async def story(database: Database) -> None:
        actions = Actions(database, lambda: 7)
        await fill(actions, 1)
        (line,) = await actions.list(limit=10)
        assert line == Action(line.id, 7, "token 0", "::1", "create", "/0", {"number": 0}, "ok")

    with_database(database_url, story)


def test_pages_and_filters(database_url: str) -> None:
    async def story(database: Database) -> None:
        actions = Actions(database, count(100).__next__)
        await fill(actions, 10)

        async def targets(**wanted: object) -> list[str]:
            return [line.target for line in await actions.list(**{"limit": 100, **wanted})]  # type: ignore[arg-type]

        assert await targets() == [f"/{number}" for number in range(9, -1, -1)]
        first = await actions.list(limit=3)
        assert [line.target for line in first] == ["/9", "/8", "/7"]
        assert await targets(after=first[-1].id, limit=2) == ["/6", "/5"]
        assert await targets(actor="token 1") == ["/9", "/7", "/5", "/3", "/1"]
        assert await targets(action="create") == ["/4", "/3", "/2", "/1", "/0"]
        assert await targets(since=107) == ["/9", "/8", "/7"]
        assert await targets(actor="token 1", action="create", since=102, after=first[-1].id) == ["/3"]
        assert await targets(actor="Token 1") == await targets(action="\0") == []

    with_database(database_url, story)


def test_what_no_database_holds_is_replaced_and_what_is_too_long_is_cut(database_url: str) -> None:
    async def story(database: Database) -> None:
        actions = Actions(database, lambda: 7)
        long = "x" * 5000
        await actions.append(
            actor=long, address=long, action=long, target="/\0\ud800🙂" + long, detail={"nul": "\0"}, outcome=long
        )
        (line,) = await actions.list(limit=10, actor=long)
        assert (len(line.actor), len(line.address), len(line.action), len(line.outcome)) == (255, 64, 64, 64)
        assert line.target.startswith("/\ufffd?🙂xx")
        assert len(line.target) == TARGET_LENGTH_MAX
        assert line.detail == {"nul": "\0"}

    with_database(database_url, story)
