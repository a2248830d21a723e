"""What wrk prints is read right, and nothing that went wrong is lost on the way."""

import json
from pathlib import Path

import pytest

from loadtests.upstreams import ANSWER, ANSWER_BYTES
from loadtests.wrk import REQUEST_BODY, REQUEST_BODY_BYTES, WrkError, parse_figures, write_script

PRINTED = """Running 2s test @ http://127.0.0.1:8000/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.52ms  345.10us   9.10ms   90.00%
  84603 requests in 2.00s, 47.31MB read

figures {"requests":84603,"duration_us":2000123,"p50_us":1345,"p99_us":3330,ERRORS}
"""
NO_ERRORS = '"connect":0,"read":0,"write":0,"status":0,"timeout":0'


def test_figures_are_found_among_the_rest() -> None:
    figures = parse_figures(PRINTED.replace("ERRORS", NO_ERRORS))
    assert figures.requests == 84603
    assert figures.duration_s == pytest.approx(2.000123)
    assert (figures.p50_us, figures.p99_us) == (1345, 3330)
    assert figures.errors == ()


def test_each_kind_of_error_becomes_a_sentence() -> None:
    errors = '"connect":1,"read":2,"write":3,"status":4,"timeout":5'
    assert parse_figures(PRINTED.replace("ERRORS", errors)).errors == (
        "1 connections refused",
        "2 read errors",
        "3 write errors",
        "4 answers with status 400 or above",
        "5 answers later than 10 s",
    )


def test_no_figures_is_an_error_that_shows_the_output() -> None:
    with pytest.raises(WrkError, match="unable to connect"):
        parse_figures("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_the_request_and_the_answer_have_the_sizes_they_are_named_by(tmp_path: Path) -> None:
    assert len(REQUEST_BODY) == REQUEST_BODY_BYTES == 283
    assert len(ANSWER) == ANSWER_BYTES == 400
    assert json.loads(REQUEST_BODY)["model"] == json.loads(ANSWER)["model"]
    assert REQUEST_BODY.decode() in write_script(tmp_path).read_text()


def test_another_client_has_headers_of_its_own(tmp_path: Path) -> None:
    script = write_script(tmp_path, {"Authorization": "Bearer other"}).read_text()
    assert [line for line in script.splitlines() if "wrk.headers" in line] == [
        'wrk.headers["Authorization"] = "Bearer other"'
    ]
