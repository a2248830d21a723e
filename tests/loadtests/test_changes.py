"""What sat in a killed worker is excused and nothing else; the page has all that was measured."""

import sqlite3
from pathlib import Path

import pytest

from loadtests.changes import Changes, Death, Served, Step, report, sat_in, sqlite_locked
from loadtests.edit_visibility import Edited
from loadtests.steady_load import SLOT_S, Failure, Record, Slot

DEATH = Death("killed", 10.0, 10.5)


@pytest.mark.parametrize(
    ("failure", "excused"),
    [
        (Failure(9.0, 10.2, "killed", "on its connection"), True),
        (Failure(10.6, 10.7, "killed", "sent before the client had heard of it"), True),
        (Failure(10.4, 10.7, "", "on a new connection, which may have been its"), True),
        (Failure(10.6, 10.7, "", "on a new connection after its end"), False),
        (Failure(10.1, 10.2, "other", "of another worker"), False),
        (Failure(9.0, 9.9, "killed", "before it was killed"), False),
        (Failure(9.0, 9.9, "", "before it was killed"), False),
    ],
)
def test_what_sat_in_the_killed_worker(failure: Failure, *, excused: bool) -> None:
    assert sat_in(failure, DEATH) is excused


def test_the_page() -> None:
    changes = Changes(Served(1, 2, 3, "token", ""), [])
    changes.edited = [Edited(0.01, {"a": 0.02, "b": number / 1000}) for number in range(1, 101)]
    changes.steps = [Step("edits", 0.0, 2 * SLOT_S, 0.0), Step("a worker killed", 9.0, 12.0, 1.25)]
    changes.deaths = [DEATH]
    failures = [Failure(10.0, 10.1, "killed", "reset"), Failure(11.0, 11.1, "other", "lost")]
    record = Record(2, failures, {0: Slot({"a": 1000}, 0.004), int(10 / SLOT_S): Slot({"a": 500}, 0.25)})
    page = report(changes, record).splitlines()
    assert "| edits | 0.2 s | 1,000 | 0 | 4 ms |  |" in page
    assert "| a worker killed | 3.0 s | 500 | 2 | 250 ms | 1.25 s |" in page
    assert "From an edit to its answer: p50 10 ms, p99 10 ms, at most 10 ms." in page
    assert "From an edit to every worker relaying by it: p50 50 ms, p99 99 ms, at most 100 ms." in page
    assert "1,500 requests were answered right, 2 failed, 1 of which did not sit in a killed worker." in page
    assert page[-1].endswith("what='lost')")


def test_a_locked_sqlite_takes_no_writer(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    with sqlite3.connect(file, timeout=0) as other:
        other.execute("CREATE TABLE t (c)")
        other.commit()
        with sqlite_locked(file), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO t VALUES (1)")
        other.execute("INSERT INTO t VALUES (1)")
    other.close()
