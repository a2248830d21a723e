"""The ledger as a whole, in the shapes that reference 002 documents."""

from tests.admin.api import Api, serving
from tests.admin.memory import Memory

TOKEN = "tok_1"
TEXT = "flow_" + "a" * 64


def test_the_stats_of_the_cleaning_have_all_that_is_documented(api: Api) -> None:
    answer = api.ask("GET", "/flow/quota/cleanup/stats")
    assert answer.status_code == 200
    assert answer.json() == {
        **{name: answer.json()[name] for name in ("timestamp", "request_id")},
        "success": True,
        "message": None,
        "data": {
            "enabled": True,
            "retention_days": 180,
            "cleanup_interval": "24h0m0s",
            "batch_size": 10_000,
            "last_cleanup_time": "2025-10-18 03:00:15",
            "last_cleanup_count": 15_234,
            "total_cleaned_count": 1_523_456,
            "next_cleanup_time": None,
            "running": False,
        },
    }


def test_a_cleaning_is_triggered_once_and_recorded(api: Api) -> None:
    told = [api.ask("POST", "/flow/quota/cleanup/trigger").json() for _ in range(2)]
    assert [one["message"] for one in told] == ["Begun.", "It runs already."]
    assert told[0]["data"]["running"]
    assert api.outcomes() == [("quota.cleanup", "ledger", "done")] * 2


def test_the_queue_has_real_figures_and_none_while_redis_is_away(api: Api) -> None:
    api.memory.about_tokens.ledger.known = (7, 1.23456)
    shown = api.ask("GET", "/flow/cache-write-pool/stats").json()["data"]
    assert shown == {
        "sync_queue_len": 7,
        "sync_queue_cap": None,
        "log_queue_len": 7,
        "log_queue_cap": None,
        "sync_interval": "0.5s",
        "sync_batch_size": 4000,
        "lag_seconds": 1.235,
    }
    api.memory.about_tokens.ledger.known = None
    shown = api.ask("GET", "/flow/cache-write-pool/stats").json()["data"]
    assert (shown["log_queue_len"], shown["lag_seconds"]) == (None, None)


def test_a_ledger_comes_as_csv_by_id_and_by_text(api: Api) -> None:
    api.memory.about_tokens.tokens.put(TOKEN, TEXT, 10)
    for name in (TOKEN, TEXT):
        answer = api.ask("GET", f"/flow/tokens/{name}/quota/logs.csv")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.headers["content-disposition"] == 'attachment; filename="tok_1.csv"'
        assert answer.text == "token,sequence\r\ntok_1,1\r\n"
    assert api.ask("GET", f"/flow/tokens/{TOKEN}/quota/logs.csv?end_date=2020-01-01").text == "token,sequence\r\n"
    assert api.ask("GET", f"/flow/tokens/{TOKEN}/quota/logs.csv?end_date=never").status_code == 400
    assert api.ask("GET", "/flow/tokens/tok_2/quota/logs.csv").json()["error"]["type"] == "NotFound"


def test_nobody_gets_any_of_it_without_the_admin_token() -> None:
    with serving(Memory()) as client:
        for path in ("/flow/quota/cleanup/stats", "/flow/cache-write-pool/stats", "/flow/tokens/tok_1/quota/logs.csv"):
            assert client.get(path).status_code == 401
        assert client.post("/flow/quota/cleanup/trigger").status_code == 401
