"""The workers that are there."""

from tests.admin.api import Api
from tests.admin.counted import NOW_S, worker
from tests.admin.memory import Worker


def test_workers_are_listed_with_whether_they_are_up_to_date(api: Api) -> None:
    api.ask("POST", "/api/mappings", {"prefix": "/a", "target": "https://a.test"})
    api.memory.workers.workers = [
        Worker(worker("a", configuration=1, unsent=5), alive=True),
        Worker(worker("b", configuration=0), alive=False),
    ]
    answer = api.ask("GET", "/api/workers").json()
    assert (answer["success"], answer["configuration"]) == (True, 1)
    first, second = answer["workers"]
    assert first == {
        "name": "a",
        "host": "host",
        "pid": 7,
        "version": "1.0",
        "started_at": int(NOW_S - 60) * 1000,
        "seen_at": int(NOW_S) * 1000,
        "alive": True,
        "configuration": 1,
        "newest": True,
        "in_flight": 2,
        "memory_bytes": 50 * 1024 * 1024,
        "unsent": 5,
    }
    assert (second["alive"], second["newest"]) == (False, False)
