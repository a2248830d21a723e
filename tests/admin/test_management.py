"""Reference 004's management on a real database. What it answers is in `tests/admin/endpoints/`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from admin.control_plane import opened
from admin.management import BalancingManagement, Known
from admin.services.edits import Editor
from admin.services.failures import DuplicateBackend, NoSuchBackend, NoSuchUpstream
from admin.services.upstreams import Upstreams
from admin.services.versions import Versions
from proxy.config import Config, ConfigError
from tests.admin.balancing_memory import BalancingMemory
from tests.admin.memory import Statistics, Stream, Workers
from tests.admin.reference_004 import DOCUMENTED, ROUTES, UPSTREAMS

NEW = {"id": "backend2", "host": "127.0.0.1", "port": 8082}


def with_management(directory: Path, story: Callable[[BalancingManagement, Versions], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(Config(data_dir=str(directory))) as database:
            editor = Editor(database, lambda _: None, lambda: 0)
            versions = Versions(editor)
            known = Known(dict, dict, BalancingMemory())
            management = BalancingManagement(
                Config(), Upstreams(editor), versions.current, Statistics(), Stream(), Workers(), known, None
            )
            await story(management, versions)

    asyncio.run(main())


def test_a_document_is_one_version_and_none_where_nothing_differs(tmp_path: Path) -> None:
    async def story(management: BalancingManagement, versions: Versions) -> None:
        assert await management.update_config(DOCUMENTED, "me") == 1
        current = await versions.current()
        assert (current.upstreams, current.routes) == (UPSTREAMS, ROUTES)
        shown = await management.config()
        assert shown.pop("version") == 1
        assert await management.update_config(shown, "me") == 1
        with pytest.raises(ConfigError, match=r"routing\./\.upstream"):
            await management.update_config({"backends": {}, "upstreams": {}}, "me")
        assert await management.update_config({"backends": {}, "routing": {}}, "me") == 2
        assert [one.actor for one in await versions.list(None, 9)] == ["me", "me"]
        await versions.roll_back(1, "me")
        assert (await management.config())["backends"].keys() == {"default"}

    with_management(tmp_path, story)


def test_each_change_of_a_backend_is_a_version_and_of_changes_at_once_none_is_lost(tmp_path: Path) -> None:
    async def story(management: BalancingManagement, versions: Versions) -> None:
        await management.update_config(DOCUMENTED, "me")
        await management.add_backend("default", NEW, "me")
        changes: list[dict[str, Any]] = [{"weight": 7}, {"name": "two"}, {"max_conn": 5}, {"priority": 1}]
        await asyncio.gather(
            *(management.update_backend("default", {"id": "backend2", **change}, "me") for change in changes)
        )
        drained = await management.disconnect_backend("default", "backend2", "me")
        assert drained == {**drained, "weight": 7, "name": "two", "max_conn": 5, "priority": 1, "draining": True}
        assert await versions.newest() == 7
        await management.disconnect_backend("default", "backend2", "me")
        assert await versions.newest() == 7, "it drains already"
        (_, shown) = (await management.backends("default"))["default"]
        assert shown == {**drained, "health": None}
        await management.remove_backend("default", "backend2", "me")
        assert [one["id"] for one in (await management.backends(None))["default"]] == ["backend1"]

    with_management(tmp_path, story)


def test_what_is_not_there_and_what_is_there_already_are_told(tmp_path: Path) -> None:
    async def story(management: BalancingManagement, versions: Versions) -> None:
        await management.update_config(DOCUMENTED, "me")
        with pytest.raises(DuplicateBackend):
            await management.add_backend("default", {"host": "127.0.0.1", "port": 8081}, "me")
        with pytest.raises(NoSuchUpstream):
            await management.update_backend("absent", {"id": "backend1"}, "me")
        for call in (management.remove_backend, management.disconnect_backend):
            with pytest.raises(NoSuchBackend):
                await call("default", "absent", "me")
        with pytest.raises(NoSuchBackend):
            await management.report("default", "absent", {"cpu_usage": 1})
        assert await versions.newest() == 1

    with_management(tmp_path, story)
