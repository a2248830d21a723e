"""Two relays are compared only where both give the right answer."""

from pathlib import Path

import pytest

from loadtests.cases import WrongAnswerError
from loadtests.relay_pairs import Variant, compared
from loadtests.upstreams import Upstreams
from loadtests.wrk import REQUEST_PATH
from tests.redis_servers import program


def test_a_relay_that_answers_something_else_is_found_out(origins: Upstreams, tmp_path: Path) -> None:
    program()
    right, wrong = (Variant({"/": f"http://127.0.0.1:{at.port}"}, {}) for at in (origins.http, origins.streaming))
    with pytest.raises(WrongAnswerError):
        compared(tmp_path, right, wrong, REQUEST_PATH, 1, 1)
