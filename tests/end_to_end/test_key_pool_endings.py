"""Nothing is sent again once a byte of an answer has gone to the client, and nothing that was not kept for it.

What a client wanted is named by a marker, and the provider counts how often it did it.
"""

import json
from collections.abc import Iterator

import pytest

from loadtests.fake_provider import FakeProvider
from loadtests.fake_provider_keys import Behaviour, Does
from loadtests.fake_provider_requests import MARKER
from loadtests.fake_requests import Ending
from tests.end_to_end.calls import ANTHROPIC, GEMINI, HEADERS, OPENAI, Call, bad
from tests.end_to_end.key_pool import BODY_BYTES_MAX, Pool, configuration
from tests.end_to_end.raw_client import BodyEnd, ClosedEarlyError, Response
from tests.end_to_end.system import serving
from tests.end_to_end.waiting import eventually, never

CALLS = [call for plain in (OPENAI, ANTHROPIC, GEMINI) for call in (plain, plain.streamed())]


@pytest.mark.parametrize("ending", [Ending.FIN, Ending.RST])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.route}-{'stream' in str(call).lower()}")
def test_an_answer_that_is_cut_is_cut_for_the_client_and_asked_for_once(pool: Pool, call: Call, ending: Ending) -> None:
    keys = pool.add(3)
    pool.plan(keys, Behaviour(Does.CUT_AFTER, ending=ending))
    told = pool.crowd(call, clients=8, each=1)
    assert all(each.response.status == 200 for each in told)
    assert all(each.response.end in (BodyEnd.CUT, BodyEnd.RESET) for each in told)
    assert [len(pool.provider.with_marker(each.marker)) for each in told] == [1] * len(told)
    assert [pool.provider.processed(each.marker) for each in told] == [1] * len(told)


def test_a_stream_that_is_left_by_its_client_is_asked_for_once(pool: Pool) -> None:
    (key,) = pool.add(1)
    pool.plan([key], Behaviour(words=1000, interval_s=0.02))
    marker = pool.marker()
    call = OPENAI.streamed()
    with pool.system.client() as client:
        body = json.dumps(call.document).encode()
        length = (b"content-length", str(len(body)).encode())
        head = [*HEADERS, (MARKER.encode(), marker.encode()), length]
        client.send(raw_head(f"/{pool.number}/openai{call.path}", head) + body)
        assert client.read_head().status == 200
    eventually(lambda: pool.provider.with_marker(marker)[0].recorded.peer_closed_s, what="the close")
    never(lambda: len(pool.provider.with_marker(marker)) > 1, 0.3, what="another request")
    assert pool.status_of(key) == "active"


def raw_head(target: str, fields: list[tuple[bytes, bytes]]) -> bytes:
    lines = [f"POST {target} HTTP/1.1".encode(), b"Host: relay", *(name + b": " + value for name, value in fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


# Bodies


def padded(body_bytes: int) -> Call:
    """A request with a body of exactly so many bytes."""
    bare = len(json.dumps({**OPENAI.document, "padding": ""}))
    return OPENAI._replace(document={**OPENAI.document, "padding": "p" * (body_bytes - bare)})


def test_a_body_that_is_kept_goes_out_again(pool: Pool) -> None:
    failing, _ = pool.add(2)
    pool.plan([failing], Behaviour(Does.PAYMENT_REQUIRED))
    told = pool.crowd(padded(BODY_BYTES_MAX), clients=8)
    assert bad(told) == []
    assert pool.used(failing)
    seen = {(each.body_bytes, each.body_sha256) for made in told for each in pool.provider.with_marker(made.marker)}
    assert len(seen) == 1
    assert seen.pop()[0] == BODY_BYTES_MAX


@pytest.mark.parametrize(("does", "status"), [(Does.PAYMENT_REQUIRED, 402), (Does.FAILED, 500)])
def test_a_body_that_is_too_large_to_be_kept_goes_out_once(pool: Pool, does: Does, status: int) -> None:
    keys = pool.add(2)
    pool.plan(keys, Behaviour(does))
    told = pool.told(padded(BODY_BYTES_MAX + 1))
    assert told.response.status == status
    (asked,) = pool.provider.with_marker(told.marker)
    assert asked.body_bytes == BODY_BYTES_MAX + 1


def test_a_large_body_is_streamed(pool: Pool) -> None:
    """Its beginning is at the provider before its end has left the client."""
    pool.add(1)
    body = json.dumps(padded(8 * BODY_BYTES_MAX).document).encode()
    half = len(body) // 2
    marker = pool.marker()
    fields = [*HEADERS, (MARKER.encode(), marker.encode()), (b"content-length", str(len(body)).encode())]
    with pool.system.client() as client:
        client.send(raw_head(f"/{pool.number}/openai{OPENAI.path}", fields) + body[:half])

        def arrived() -> bool:
            asked = pool.provider.with_marker(marker)
            return bool(asked) and asked[0].recorded.body_bytes > half - 3 * BODY_BYTES_MAX

        eventually(arrived, what="the first half")
        client.send(body[half:])
        assert client.read_response().status == 200
    (asked,) = pool.provider.with_marker(marker)
    assert asked.body_bytes == len(body)


# When nothing is left


@pytest.mark.parametrize(
    ("does", "status", "word"),
    [
        (Does.PAYMENT_REQUIRED, 402, "Insufficient Balance"),
        (Does.UNAUTHORIZED, 401, "invalid_api_key"),
        (Does.OUT_OF_QUOTA, 429, "insufficient_quota"),
        (Does.NO_MODEL, 404, "model_not_found"),
        (Does.FAILED, 500, "server_error"),
        (Does.OVERLOADED, 503, "service_unavailable_error"),
    ],
)
def test_the_last_answer_of_the_upstream_is_relayed_as_it_was(pool: Pool, does: Does, status: int, word: str) -> None:
    keys = pool.add(2)
    pool.plan(keys, Behaviour(does))
    told = pool.told()
    assert told.response.status == status
    assert word in told.response.body.decode()
    assert told.response.value("content-type") == b"application/json"
    assert told.response.values("x-request-id") == [b"req_fake"]
    assert {each.key for each in pool.provider.with_marker(told.marker)} == set(keys)


def test_a_connection_that_is_always_cut_is_the_relays_502(pool: Pool) -> None:
    keys = pool.add(2)
    pool.plan(keys, Behaviour(Does.CUT_BEFORE))
    response = pool.ask()
    assert response.status == 502
    assert pool.ask().status in (502, 503)


def test_a_group_without_keys_has_no_credential(pool: Pool) -> None:
    response = pool.ask()
    assert (response.status, response.error_type()) == (503, "no_credential")
    assert int(response.value("retry-after")) >= 1


# Who would rather have an error than a thing done twice


@pytest.fixture(name="careful", scope="module")
def fixture_careful(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Pool]:
    settings = configuration(provider, 1, retry_idempotent_only=True, error_threshold=100)
    with serving(tmp_path_factory.mktemp("careful"), settings) as system:
        yield Pool(system, provider, 0)


def test_a_post_that_may_have_been_acted_on_is_not_repeated_where_that_is_wanted(careful: Pool) -> None:
    careful.add(3)
    for does, done in ((Does.CUT_AFTER_WORK, 1), (Does.FAILED, 0)):
        careful.plan(careful.keys, Behaviour(does))
        for _ in range(5):
            marker = careful.marker()
            assert status_of(careful, marker) in (500, 502)
            assert len(careful.provider.with_marker(marker)) == 1
            assert careful.provider.processed(marker) == done


def status_of(pool: Pool, marker: str) -> int:
    try:
        response: Response = pool.ask(marker=marker)
    except ClosedEarlyError:
        return 0
    return response.status
