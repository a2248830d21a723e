"""What is admitted must be what is counted. The case itself runs in `test_own_cases.py`."""

from pathlib import Path

import pytest

from loadtests import metering_rate
from loadtests.cases import WrongAnswerError
from loadtests.meter_askers import Asking
from loadtests.metering_rate import BOUNDED, UNBOUNDED, MeteringRate, published
from loadtests.upstreams import Upstreams
from tests.redis_servers import program


def test_each_token_is_another() -> None:
    tokens = [*published("one", 1, UNBOUNDED), *published("many", 3, BOUNDED)]
    assert len({token.digest for token in tokens}) == len({token.record.id for token in tokens}) == 4
    assert all(token.terms.per_minute and token.terms.per_second and token.terms.concurrent for token in tokens[1:])


def test_admissions_that_redis_did_not_count_are_no_figure(
    origins: Upstreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program()
    monkeypatch.setattr(metering_rate, "ask", lambda *_: Asking(5, 7, 1.0, 0.001, 0.002))
    with pytest.raises(WrongAnswerError, match="7 requests were admitted, and 0 counted"):
        MeteringRate().measure(origins, tmp_path)
