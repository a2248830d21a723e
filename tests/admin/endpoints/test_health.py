"""Health, which anybody may ask for."""

from admin.readiness import Health, View
from tests.admin.api import serving, there
from tests.admin.memory import Memory


async def gone() -> None:
    raise ConnectionError("redis://:s3cret@10.0.0.1:6379")


def test_the_process_answers() -> None:
    with serving(Memory()) as client:
        answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_it_is_ready_when_all_components_are_there() -> None:
    with serving(Memory(), probes={"database": there, "redis": there}) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert {name: one["state"] for name, one in answer.json()["components"].items()} == {
        "database": "ok",
        "redis": "ok",
    }


def test_it_is_not_when_one_is_down_and_tells_no_more_than_that() -> None:
    with serving(Memory(), probes={"database": there, "redis": gone}) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "down"
    redis = answer.json()["components"]["redis"]
    assert redis["state"] == "down"
    assert redis["since"] > 1_700_000_000
    assert "10.0.0.1" not in answer.text
    assert "s3cret" not in answer.text


def test_workers_and_events_are_shown_and_do_not_decide() -> None:
    views = {
        "workers": lambda: View(Health.DOWN, {"count": 0}),
        "events": lambda: View(Health.OK, {"waiting": 3, "lag_s": 0.5}),
    }
    with serving(Memory(), probes={"database": there}, views=views) as client:
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    components = answer.json()["components"]
    assert components["workers"] == {"state": "down", "since": components["workers"]["since"], "count": 0}
    assert components["events"] == {**components["events"], "state": "ok", "waiting": 3, "lag_s": 0.5}
    assert components["database"].keys() == {"state", "since"}
