"""Under constant load everything changes or dies that may, one after the other, and no request is lost by it.

`loadtests/changes.py` does it; `python -m loadtests.changes` prints its figures, and judges those that are about time.
"""

import shutil
from pathlib import Path

import pytest
import uvloop

from loadtests.changes import WORKERS, Changes, Served, configuration, play, report, upstreams
from loadtests.edit_visibility import MOVING
from loadtests.samples import percentile
from loadtests.steady_load import FRESH, KEEP_ALIVE, STEADY, steady_load
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.relay_process import FORBIDDEN
from tests.end_to_end.sql_outages import sql_that_stops
from tests.end_to_end.system import TOKEN, System
from tests.end_to_end.waiting import settled

EXCUSED = ("Unexpected exit",)
"""What is printed for a worker that was killed."""
ANNOUNCED_S = 0.5
"""Publisher and workers look for news once a second each, so edits that nobody announced take longer, most of them."""

UNCOUNTED_MAX = 1
"""A worker that is killed may have answered a request and not yet counted it."""


def statistics_total(system: System) -> int:
    total: int = system.admin("GET", "/stats").body["total"]
    return total


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "tls", "edits"), [("sqlite", True, 1000), ("postgresql", False, 300)])
def test_no_change_costs_a_request(
    kind: str, *, tls: bool, edits: int, tmp_path: Path, certificates: Certificates
) -> None:
    authority = str(certificates.ca) if tls else ""
    with sql_that_stops(kind, tmp_path) as sql, upstreams(tmp_path) as targets:
        settings = configuration(targets) | {"database": {"url": sql.url}}
        first = certificates.issue("first", "127.0.0.1")
        second = certificates.issue("second", "127.0.0.1")

        def put_certificate() -> None:
            shutil.copy(second.certificate, first.certificate)
            shutil.copy(second.key, first.key)

        if tls:
            settings["tls"] = {"certificate": str(first.certificate), "key": str(first.key)}
        system = System(tmp_path, settings, certificates.client_tls() if tls else None)
        system.start()
        try:
            assert system.process is not None
            changes = Changes(Served(system.port, system.admin_port, system.process.pid, TOKEN, authority), targets)
            with steady_load(system.port, authority) as load:
                uvloop.run(play(changes, edits, sql.stopped(), put_certificate if tls else None))
                record = load.stop()
            counted = settled(lambda: statistics_total(system), for_s=3, deadline_s=30)
            last = targets[(changes.moves - 1) % len(targets)]
            mappings = system.admin("GET", "/api/mappings").body
            output = system.output()
            system.excuse_output()
            system.stop()
        finally:
            if system.process is not None and system.process.poll() is None:
                system.kill()

    print(report(changes, record))
    # Nobody noticed.
    assert changes.unexcused(record) == []
    assert record.failed <= KEEP_ALIVE + FRESH
    assert [word for word in FORBIDDEN if word in output and word not in EXCUSED] == []

    # The load was there all the time, on both workers, on those that took their place, and on that of the killed one.
    assert all(record.answered_by(step.began_s, step.ended_s) for step in changes.steps)
    (death,) = changes.deaths
    workers = set(record.answered_by())
    assert death.worker in workers
    assert len(workers) == (WORKERS * 2 if tls else WORKERS) + 1

    # Every request was counted once; those that failed in the killed worker, if it got so far.
    answered = record.answered + changes.visibility.asked
    print(f"{counted:,} requests counted, {answered:,} answered")
    assert answered - UNCOUNTED_MAX <= counted <= answered + record.failed

    # Every edit was made once, became visible everywhere, and is still there.
    assert len(changes.edited) == edits
    assert percentile([edited.everywhere_s for edited in changes.edited], 95) < ANNOUNCED_S
    assert mappings["mappings"] == {STEADY: targets[0].url, MOVING: f"{last.url}/v{changes.moves - 1}"}
    assert mappings["version"] == changes.first_version + changes.made
