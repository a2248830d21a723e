"""A case accepts only exact answers and measures what it says; the upstream itself stands in for a perfect proxy."""

import shutil
from dataclasses import replace

import pytest

from loadtests.cases import (
    Case,
    DownloadCase,
    IdleCase,
    PostCase,
    SlowCase,
    SseCase,
    UploadCase,
    WrongAnswerError,
    expect,
)
from loadtests.compare import Comparison, all_cases, arguments
from loadtests.processes import Launch, Running
from loadtests.samples import Metric
from loadtests.servers import SERVERS, Job
from loadtests.transfers import TransferError
from loadtests.upstreams import MIB, Upstreams

CASES: list[Case] = [
    PostCase("http", 2, 1),
    SseCase(10, 0.5),
    DownloadCase(8 * MIB),
    UploadCase(8 * MIB),
    IdleCase(20),
    SlowCase(2, 20_000_000, 8 * MIB),
]
NOT_A_SESSION = 2**22 + 1


def direct(case: Case, origins: Upstreams) -> Running:
    """The upstream of a case as if it were the proxy. No process has this session, so cost and memory are zero."""
    return Running(session=NOT_A_SESSION, port=case.origin(origins).port)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_verifies_and_measures_without_errors(case: Case, origins: Upstreams) -> None:
    for program in ("wrk", "curl"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    proxy = direct(case, origins)
    case.verify(origins, proxy.port)
    outcome = case.measure(origins, proxy)
    assert outcome.errors == []
    assert outcome.values.get(Metric.UNITS_PER_S, 1) > 0
    assert outcome.values[Metric.PSS_BYTES] == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_proxy_that_answers_something_else_is_refused(case: Case, origins: Upstreams) -> None:
    elsewhere = {origins.http: origins.streaming, origins.streaming: origins.http}[case.origin(origins)]
    with pytest.raises(WrongAnswerError):
        case.verify(origins, elsewhere.port)


def test_a_body_of_another_size_is_refused(origins: Upstreams) -> None:
    case = DownloadCase(9 * MIB)
    with pytest.raises(TransferError, match="8388608 of 9437184 bytes came"):
        case.measure(origins, direct(case, origins))


@pytest.mark.parametrize("answer", [(500, b"right"), (200, b"wrong"), (200, b"rightright"), (204, b"")])
def test_only_status_200_with_the_exact_bytes_will_do(answer: tuple[int, bytes]) -> None:
    with pytest.raises(WrongAnswerError):
        expect(answer, b"right")


def test_every_case_has_an_example_here() -> None:
    assert {type(case) for case in all_cases(arguments([]))} == {type(case) for case in CASES}


def test_a_proxy_that_does_not_verify_certificates_is_found_out(origins: Upstreams) -> None:
    def launch(job: Job) -> Launch:
        careful = SERVERS["nginx"].launch(job)
        configuration = job.directory / "nginx.conf"
        configuration.write_text(configuration.read_text().replace("proxy_ssl_verify on", "proxy_ssl_verify off"))
        return careful

    careless = replace(SERVERS["nginx"], launch=launch)
    outcome = Comparison(origins, [careless]).attempt(PostCase("https", 1, 1), careless)
    assert outcome.errors == ["status 200 from an upstream with a stranger's certificate"]
