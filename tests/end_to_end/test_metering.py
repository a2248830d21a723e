"""Access tokens as users meet them, through `relaygate serve`: who is let in, who is not and why, and what it costs."""

import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from loadtests.fake_answers import answer_words
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.calls import ANTHROPIC, OPENAI
from tests.end_to_end.harness import Seen
from tests.end_to_end.key_pool import client_of_each_worker
from tests.end_to_end.metering import ROWS_S, Metering, Token, request_id_of
from tests.end_to_end.raw_client import Header, RawClient, Response, chunked, request_bytes
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import CLOSE, TEXT, WebSocketClient, close_payload

ASKED: Any = [{"role": "user", "content": "say something"}]
WHOLE = "".join(answer_words(8))
ANSWER = "/up/answer?body=ok"


def statuses(told: list[Response]) -> list[int]:
    return [each.status for each in told]


# Who is let in


def test_the_sdk_of_openai_works_as_it_is(metering: Metering) -> None:
    token = metering.token(10)
    url = f"{metering.system.url}/openai/v1"
    asked_before = len(metering.provider.asked)
    with openai.OpenAI(api_key=token.text, base_url=url, max_retries=0, timeout=20) as gpt:
        completion = gpt.chat.completions.create(model="gpt-fake", messages=ASKED)
        assert completion.choices[0].message.content == WHOLE
        stream = gpt.chat.completions.create(model="gpt-fake", messages=ASKED, stream=True)
        assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices) == WHOLE
        assert gpt.responses.create(model="gpt-fake", input="say something").output_text == WHOLE
    assert_the_pools_alone(metering, token, asked_before)
    assert metering.remaining(token) == 7


def test_the_sdk_of_anthropic_works_as_it_is(metering: Metering) -> None:
    token = metering.token(10)
    url = f"{metering.system.url}/anthropic"
    asked_before = len(metering.provider.asked)
    with anthropic.Anthropic(api_key=token.text, base_url=url, max_retries=0, timeout=20) as claude:
        message = claude.messages.create(model="claude-fake", max_tokens=100, messages=ASKED)
        assert message.content[0].type == "text"
        assert message.content[0].text == WHOLE
        with claude.messages.stream(model="claude-fake", max_tokens=100, messages=ASKED) as stream:
            assert "".join(stream.text_stream) == WHOLE
    assert_the_pools_alone(metering, token, asked_before)
    assert metering.remaining(token) == 8


def assert_the_pools_alone(metering: Metering, token: Token, since: int) -> None:
    """The provider has been shown the pool's key, and not a byte of the token."""
    asked = metering.provider.asked[since:]
    assert asked
    for each in asked:
        assert each.key == metering.pool_key
        assert token.text.encode() not in each.recorded.head + bytes(each.recorded.body)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("field", ["Authorization: Bearer {}", "x-api-key: {}", "accessToken: {}", "access-token: {}"])
def test_curl_shows_it_in_each_field(metering: Metering, seen: Seen, field: str) -> None:
    token = metering.token(1)
    command = ["curl", "-s", "-w", "%{http_code}", "-H", field.format(token.text), f"{metering.system.url}{ANSWER}"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=20).stdout == b"ok200"
    assert token.text.encode() not in seen.one().head


def test_beside_a_field_of_the_relays_the_others_are_the_upstreams(metering: Metering) -> None:
    token = metering.token(1)
    answer = metering.ask("/own/openai/v1/chat/completions", token, OPENAI.document)
    assert answer.status == 200
    assert metering.provider.asked[-1].key == metering.own_key


@pytest.mark.parametrize(
    "names",
    [("accessToken", "authorization"), ("authorization", "x-api-key"), ("access-token", "x-goog-api-key", "api-key")],
    ids="-".join,
)
def test_a_token_that_stands_in_several_fields_stays_here(metering: Metering, seen: Seen, names: list[str]) -> None:
    token = metering.token(1)
    fields = [(name.encode(), token.fields[0][1] if name == "authorization" else token.text.encode()) for name in names]
    assert metering.system.request("GET", ANSWER, fields).status == 200
    assert token.text.encode() not in seen.one().head


# Who is not


def refused(metering: Metering, token: Token, path: str = ANSWER, document: Any = None) -> tuple[int, str]:
    answer = metering.ask(path, token, document)
    return answer.status, answer.error_type()


def test_who_shows_none_or_a_wrong_one(metering: Metering) -> None:
    answer = metering.system.get(ANSWER)
    assert (answer.status, answer.error_type()) == (401, "no_token")
    assert refused(metering, Token("", "flow_" + "0" * 64)) == (401, "wrong_token")


def test_an_expired_one(metering: Metering) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    token = metering.token(operation="set", specific_date=soon)
    assert metering.ask(ANSWER, token).status == 200
    eventually(lambda: metering.ask(ANSWER, token).status != 200, what="its end")
    assert refused(metering, token) == (401, "token_expired")


def test_what_a_token_is_for(metering: Metering, seen: Seen) -> None:
    disabled = metering.token(9)
    metering.change(disabled, state="disabled")
    assert refused(metering, disabled) == (403, "token_disabled")
    elsewhere = metering.token(9, routes=["/other"])
    assert refused(metering, elsewhere) == (403, "not_for_route")
    assert metering.ask("/other/answer?body=ok", elsewhere).status == 200
    far = metering.token(9, networks=["10.0.0.0/8"])
    assert refused(metering, far) == (403, "not_for_route")
    from_there: list[Header] = [(b"x-forwarded-for", b"10.1.2.3")]
    assert metering.ask(ANSWER, far, headers=from_there).status == 200
    some = metering.token(9, models=["gpt-fake", "claude-*"])
    chat = "/openai/v1/chat/completions"
    assert refused(metering, some, chat, {**OPENAI.document, "model": "gpt-fake-mini"}) == (403, "not_for_model")
    assert refused(metering, some, chat, {**OPENAI.document, "Model": "other"}) == (403, "not_for_model")
    assert refused(metering, some, chat, {}) == (403, "not_for_model")
    assert metering.ask(chat, some, OPENAI.document).status == 200
    assert metering.ask("/anthropic/v1/messages", some, ANTHROPIC.document).status == 200
    money = metering.token(9_000_000_000, unit="nano_usd")
    assert refused(metering, money, chat, {**OPENAI.document, "model": "unheard-of"}) == (403, "no_price")
    assert [metering.remaining(each) for each in (disabled, elsewhere, far, some)] == [9, 8, 8, 7]
    assert metering.remaining(money) == 9_000_000_000, "what is refused costs nothing"
    assert len(seen.all()) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/gemini/v1beta/models/gpt-fake/../other:generateContent",
        "/gemini/v1beta/models/gpt-fake%2F..%2Fother:generateContent",
        "/openai/openai/deployments/gpt-fake/../../v1/chat/completions",
        "/openai/openai/deployments/gpt-fake/..%5C..%5Cv1/chat/completions",
        "/openai/openai/Deployments/other/chat/completions",
        "/openai/openai/%64eployments/other/chat/completions",
    ],
)
def test_a_path_that_servers_read_otherwise_is_for_no_model(metering: Metering, path: str) -> None:
    token = metering.token(9, models=["gpt-fake*"])
    model = "gpt-fake" if "eployments/other" in path else "other"
    document = {**OPENAI.document, "model": model, "contents": [{"parts": [{"text": "say"}]}]}
    assert refused(metering, token, path, document) == (403, "not_for_model")


def test_who_guesses_waits(metering: Metering) -> None:
    """By the address that a trusted proxy tells, so that others are let in."""
    from_there: list[Header] = [(b"x-forwarded-for", b"203.0.113.9")]
    wrong = Token("", "flow_" + "1" * 64)
    with metering.system.client() as client:
        told = [metering.ask(ANSWER, wrong, client=client, headers=from_there) for _ in range(40)]
    assert statuses(told[:20]) == [401] * 20
    assert set(statuses(told[30:])) == {429}
    assert told[-1].error_type() == "wrong_tokens"
    assert 1 <= int(told[-1].value("retry-after")) <= 60
    assert refused(metering, wrong) == (401, "wrong_token")


# Rates


def at_once(metering: Metering, token: Token, requests: int, clients: int = 8) -> list[Response]:
    """So many requests over both workers, as fast as they go."""

    def one(number: int) -> list[Response]:
        with metering.system.client() as client:
            turns = range(number, requests, clients)
            return [metering.ask(ANSWER, token, client=client) for _ in turns]

    with ThreadPoolExecutor(clients) as threads:
        return [each for told in threads.map(one, range(clients)) for each in told]


def test_a_rate_a_minute_over_two_workers(metering: Metering) -> None:
    token = metering.token(100, rate_limit_per_minute=7)
    told = at_once(metering, token, 40)
    assert sorted(statuses(told)) == [200] * 7 + [429] * 33
    left = sorted(int(each.value("x-ratelimit-remaining")) for each in told if each.status == 200)
    assert left == list(range(7))
    late = next(each for each in told if each.status == 429)
    assert late.error_type() == "rate_limited"
    assert 50 <= int(late.value("retry-after")) <= 61
    assert (late.value("x-ratelimit-limit"), late.value("x-ratelimit-remaining")) == (b"7", b"0")
    assert 50 <= int(late.value("x-ratelimit-reset")) <= 61
    assert metering.remaining(token) == 93


def test_no_second_has_more_than_its_burst(metering: Metering) -> None:
    """By the wall clock: a request was admitted between its sending and its answer."""
    burst, for_s, clients = 4, 2.6, 6
    token = metering.token(rate_limit_per_minute=6000, rate_limit_burst=burst)
    end_s = time.monotonic() + for_s

    def one(_: int) -> list[tuple[float, float, int]]:
        told = []
        with metering.system.client() as client:
            while (sent_s := time.monotonic()) < end_s:
                status = metering.ask(ANSWER, token, client=client).status
                told.append((sent_s, time.monotonic(), status))
        return told

    with ThreadPoolExecutor(clients) as threads:
        told = [each for some in threads.map(one, range(clients)) for each in some]
    admitted = [(sent_s, answered_s) for sent_s, answered_s, status in told if status == 200]
    assert {status for *_, status in told} == {200, 429}
    for begin_s, _ in admitted:
        within = sum(begin_s <= sent_s and answered_s <= begin_s + 1 for sent_s, answered_s in admitted)
        assert within <= burst
    assert len(admitted) >= 2 * burst, "each second has its own"


def test_so_many_at_once_on_both_workers(metering: Metering) -> None:
    token = metering.token(20, concurrent=2)
    held = [metering.system.client() for _ in range(2)]
    try:
        for client in held:
            client.send(request_bytes("GET", "/up/hold", token.fields))
        eventually(lambda: metering.remaining(token) == 18, what="two that run")
        for told in metering.asked_by_each_worker(ANSWER, token):
            assert (told.status, told.error_type()) == (429, "too_many_at_once")
    finally:
        for client in held:
            client.close()
    eventually(lambda: metering.ask(ANSWER, token).status == 200, what="room for another")
    assert metering.changes(token, 3) == [("consume", -1)] * 3


def test_a_quota_that_is_used_up(metering: Metering) -> None:
    token = metering.token(3)
    told = at_once(metering, token, 12)
    assert sorted(statuses(told)) == [200] * 3 + [429] * 9
    late = next(each for each in told if each.status == 429)
    assert late.error_type() == "quota_exceeded"
    assert late.value("x-should-retry") == b"false"
    assert late.values("retry-after")
    with openai.OpenAI(api_key=token.text, base_url=f"{metering.system.url}/openai/v1", timeout=20) as gpt:
        began_s = time.monotonic()
        with pytest.raises(openai.RateLimitError):
            gpt.chat.completions.create(model="gpt-fake", messages=ASKED)
        assert time.monotonic() - began_s < 5, "the SDK does not ask again"


def test_changes_hold_from_the_next_request_on(metering: Metering) -> None:
    token = metering.token(4)
    with client_of_each_worker(metering.system) as clients:

        def told(path: str = ANSWER) -> list[tuple[int, str]]:
            answers = [metering.ask(path, token, client=client) for client in clients]
            return [(each.status, "" if each.status == 200 else each.error_type()) for each in answers]

        assert told() == [(200, "")] * 2
        metering.change(token, state="disabled")
        assert told() == [(403, "token_disabled")] * 2
        metering.change(token, state="active", routes=["/other"])
        assert told() == [(403, "not_for_route")] * 2
        assert told("/other/answer?body=ok") == [(200, "")] * 2
        assert told("/other/answer?body=ok") == [(429, "quota_exceeded")] * 2
        metering.change(token, quota_operation="add", quota_amount=2)
        assert told("/other/answer?body=ok") == [(200, "")] * 2
        metering.delete(token)
        assert told("/other/answer?body=ok") == [(401, "wrong_token")] * 2


# What did not reach an upstream


def test_what_was_not_sent_is_given_back(metering: Metering) -> None:
    token = metering.token(5)
    answer = metering.ask("/refused/x", token)
    assert (answer.status, answer.error_type()) == (502, "connect_refused")
    metering.remains(token, 5)
    consumed, refund = metering.ended_rows(token, 1)
    assert (consumed["execution_success"], consumed["execution_error_type"]) == (False, "connect_refused")
    assert (refund["action"], refund["quota_change"]) == ("refund", 1)
    assert consumed["request_id"] == refund["request_id"] == request_id_of(answer)


def test_unless_the_token_says_otherwise(metering: Metering) -> None:
    token = metering.token(5, refunds=False)
    assert metering.ask("/refused/x", token).status == 502
    (consumed,) = metering.ended_rows(token, 1)
    assert (consumed["action"], consumed["execution_success"]) == ("consume", False)
    assert metering.remaining(token) == 4


# Other shapes of requests


def test_a_websocket_is_a_request(metering: Metering) -> None:
    token = metering.token(2, concurrent=1)
    with metering.system.client() as wire, metering.system.client() as second:
        client = WebSocketClient(wire)
        assert client.handshake("/ws/echo", token.fields).status == 101
        client.send(TEXT, b"hello")
        assert client.receive_message().payload == b"hello"
        assert WebSocketClient(second).handshake("/ws/echo", token.fields).status == 429
        client.send(CLOSE, close_payload(1000))
        client.receive_close()
    (consumed,) = metering.ended_rows(token, 1)
    assert (consumed["quota_change"], consumed["execution_success"]) == (-1, True)
    assert eventually(lambda: handshake_of(metering, token), what="room for another") == (101, "")
    assert eventually(lambda: handshake_of(metering, token), what="room for another") == (429, "quota_exceeded")


def handshake_of(metering: Metering, token: Token) -> tuple[int, str] | None:
    """The status of one, with the word of its refusal; None while there is no room."""
    with metering.system.client() as wire:
        client = WebSocketClient(wire)
        answer = client.handshake("/ws/echo", token.fields)
        if answer.status != 101:
            word = answer.error_type()
            return None if word == "too_many_at_once" else (answer.status, word)
        client.send(CLOSE, close_payload(1000))
        client.receive_close()
        return 101, ""


def test_a_websocket_of_a_quota_of_tokens_takes_what_is_estimated(metering: Metering) -> None:
    token = metering.token(300, unit="tokens")
    assert handshake_of(metering, token) == (101, "")
    (consumed,) = metering.ended_rows(token, 1)
    assert (consumed["quota_change"], consumed["usage"]) == (-250, "unknown")
    assert handshake_of(metering, token) == (429, "quota_exceeded")


@pytest.mark.parametrize("model", ["gpt-fake", "other"])
@pytest.mark.parametrize("route", ["openai", "own/openai"])
def test_a_body_that_waits_for_a_continue(metering: Metering, route: str, model: str) -> None:
    token = metering.token(3, models=["gpt-fake"])
    body = json.dumps({**OPENAI.document, "model": model}).encode()
    path = f"/{route}/v1/chat/completions"
    head = [*metering.shown(path, token), (b"expect", b"100-continue"), (b"content-length", b"%d" % len(body))]
    with metering.system.client() as client:
        client.send(request_bytes("POST", path, head))
        client.send(body)
        assert client.read_response("POST").status == (200 if model == "gpt-fake" else 403)


@pytest.mark.parametrize("model", ["gpt-fake", "other"])
def test_a_body_in_chunks(metering: Metering, model: str) -> None:
    token = metering.token(3, models=["gpt-fake"])
    body = json.dumps({**OPENAI.document, "model": model}).encode()
    path = "/own/openai/v1/chat/completions"
    with metering.system.client() as client:
        fields = [*metering.shown(path, token), (b"transfer-encoding", b"chunked")]
        client.send(request_bytes("POST", path, fields) + chunked(body[:7], body[7:30], body[30:]))
        assert client.read_response("POST").status == (200 if model == "gpt-fake" else 403)
    if model == "gpt-fake":
        assert bytes(metering.provider.asked[-1].recorded.body) == body


# What goes wrong at clients


def test_a_body_that_never_comes_takes_nothing(metering: Metering) -> None:
    token = metering.token(3, models=["gpt-fake"], concurrent=1)
    with metering.system.client() as client:
        client.send(request_bytes("POST", "/up/answer", [*token.fields, (b"content-length", b"100")]))
        assert client.read_response("POST").status == 408
    assert metering.remaining(token) == 3


def test_clients_that_leave_at_each_moment(metering: Metering) -> None:
    """Each that was admitted is settled once, and none holds its place."""
    token = metering.token(1000, concurrent=500)
    head = request_bytes("POST", "/up/echo", [*token.fields, (b"content-length", b"10")])
    slow = request_bytes("GET", "/up/sse?events=20&interval_ms=5", token.fields)

    def leave(number: int) -> None:
        client: RawClient = metering.system.client()
        client.send([head, head + b"01234", head + b"0123456789", slow, slow[:-2]][number % 5])
        if number % 3 == 1:
            time.sleep(0.001 * (number % 17))
        if number % 2:
            client.reset()
        else:
            client.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(leave, range(150)))
    eventually(lambda: not metering.running(token), what="an end of all")
    rows = eventually(lambda: settled_rows(metering, token), ROWS_S, what="an outcome of each")
    for action in ("consume", "refund"):
        ids = [row["request_id"] for row in rows if row["action"] == action]
        assert ids
        assert len(set(ids)) == len(ids)
    assert metering.remaining(token) == 1000 + sum(row["quota_change"] for row in rows)


def settled_rows(metering: Metering, token: Token) -> list[dict[str, Any]]:
    """All rows, once none is still to come and no request still to end."""
    rows = metering.rows(token) if metering.is_taken() else []
    return rows if all(row["execution_success"] is not None for row in rows if row["action"] == "consume") else []


ODD: list[list[Header]] = [
    [(b"authorization", b"")],
    [(b"authorization", b"Bearer")],
    [(b"authorization", b"Bearer ")],
    [(b"authorization", b"Basic Zm9vOmJhcg==")],
    [(b"authorization", b"Bearer " + b"x" * 5000)],
    [(b"authorization", b"Bearer \xff\xfe\x80")],
    [(b"authorization", "Bearer flow_é".encode())],
    [(b"x-api-key", b"flow_\x09tab")],
    [(b"accessToken", b"a"), (b"accessToken", b"b")],
    [(b"access-token", b"")],
    [(b"accessToken", b",")],
]


@pytest.mark.parametrize("fields", ODD, ids=range(len(ODD)))
def test_odd_fields_are_refused(metering: Metering, seen: Seen, fields: list[Header]) -> None:
    answer = metering.system.request("GET", ANSWER, [*fields, (b"x-forwarded-for", b"198.51.100.7")])
    assert answer.status == 401
    assert not seen.all()


def test_a_token_twice_is_none(metering: Metering, seen: Seen) -> None:
    token = metering.token(3)
    for fields in ([*token.fields, *token.fields], [*token.fields, (b"Authorization", b"Bearer other")]):
        answer = metering.system.request("GET", ANSWER, fields)
        assert (answer.status, answer.error_type()) == (401, "no_token")
    assert metering.remaining(token) == 3
    assert not seen.all()


def test_a_token_that_changes_while_hundreds_of_requests_run(metering: Metering, upstream: UpstreamInThread) -> None:
    assert upstream
    token = metering.token(100_000)
    with ThreadPoolExecutor(1) as threads:
        crowd = threads.submit(at_once, metering, token, 800, 16)
        for turn in range(12):
            metering.change(token, routes=["/up"] if turn % 2 else ["/up", "/other"])
            metering.change(token, quota_operation="add", quota_amount=10)
        told = crowd.result()
    assert set(statuses(told)) <= {200, 503}
    good = statuses(told).count(200)
    assert good > 700
    metering.remains(token, 100_120 - good)
    assert len(metering.ended_rows(token, good)) == good + 12


# Last of all: what has been kept of them


def test_no_token_lies_anywhere(metering: Metering) -> None:
    metering.system.check_flushed_output()
    assert len(metering.made) > 10
    assert metering.spilled() == []
