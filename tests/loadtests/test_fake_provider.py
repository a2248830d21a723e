"""The fake provider, asked by the official SDKs as well: it treats each key as planned and forgets no request."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from loadtests.fake_answers import PROMPT_TOKENS, answer_words
from loadtests.fake_provider import TOKEN_PATH, FakeProvider, running
from loadtests.fake_provider_balances import CHAT_USAGE, SUBSCRIPTION_USAGE, Allowance
from loadtests.fake_provider_keys import Behaviour, Does, Tells
from loadtests.fake_provider_requests import MARKER
from loadtests.fake_requests import Ending

SAY: Any = [{"role": "user", "content": "say something"}]
WHOLE = "".join(answer_words(8))
CHAT = {"model": "gpt-fake", "messages": SAY}
GENERATE = "/v1beta/models/gemini-fake:generateContent"


@pytest.fixture(name="shared", scope="module")
def fixture_shared() -> Iterator[FakeProvider]:
    with running() as provider:
        yield provider


@pytest.fixture(name="provider")
def fixture_provider(shared: FakeProvider) -> FakeProvider:
    shared.forget()
    shared.plan("good")
    return shared


@pytest.fixture(name="gpt")
def fixture_gpt(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="good", base_url=f"{provider.url}/v1", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture(name="claude")
def fixture_claude(provider: FakeProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="good", base_url=provider.url, max_retries=0, timeout=10) as client:
        yield client


class Answered(dict[str, str]):
    """An answer's fields, with its status and body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        super().__init__((name.lower(), value) for name, value in response.getheaders())
        self.status = response.status
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def ask(provider: FakeProvider, path: str, document: Any = None, method: str = "POST", **fields: str) -> Answered:
    connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    try:
        connection.request(method, path, None if document is None else json.dumps(document), headers)
        return Answered(connection.getresponse())
    finally:
        connection.close()


def chat(provider: FakeProvider, key: str, **asked: Any) -> Answered:
    return ask(provider, "/v1/chat/completions", {**CHAT, **asked}, authorization=f"Bearer {key}", x_marker="once")


def test_openai_sdk(gpt: openai.OpenAI, provider: FakeProvider) -> None:
    answered = gpt.chat.completions.create(model="gpt-fake", messages=SAY, extra_headers={MARKER: "a"})
    assert answered.choices[0].message.content == WHOLE
    stream = gpt.chat.completions.create(model="gpt-fake", messages=SAY, stream=True)
    assert "".join(each.choices[0].delta.content or "" for each in stream) == WHOLE
    assert gpt.responses.create(model="gpt-fake", input="say").output_text == WHOLE
    assert [model.id for model in gpt.models.list()] == ["gpt-fake", "gpt-fake-mini"]
    assert provider.uses() == {"good": 4}
    assert provider.processed("a") == 1
    (asked,) = provider.with_marker("a")
    assert (asked.model, asked.path, asked.status, asked.at_once) == ("gpt-fake", "/v1/chat/completions", 200, 1)


def test_anthropic_sdk(claude: anthropic.Anthropic, provider: FakeProvider) -> None:
    message = claude.messages.create(model="claude-fake", max_tokens=9, messages=SAY)
    assert message.content[0].type == "text"
    assert message.content[0].text == WHOLE
    with claude.messages.stream(model="claude-fake", max_tokens=9, messages=SAY) as stream:
        assert "".join(stream.text_stream) == WHOLE
    assert claude.messages.count_tokens(model="claude-fake", messages=SAY).input_tokens == PROMPT_TOKENS
    assert [model.id for model in claude.models.list()] == ["claude-fake"]
    assert provider.uses() == {"good": 4}


@pytest.mark.parametrize("how", [{"x_goog_api_key": "good"}, {}])
def test_gemini(provider: FakeProvider, how: dict[str, str]) -> None:
    query = "" if how else "?key=good"
    answered = ask(provider, GENERATE + query, {"contents": []}, **how)
    assert answered.json()["candidates"][0]["content"]["parts"] == [{"text": WHOLE}]
    assert ask(provider, "/v1beta/models" + query, method="GET", **how).json()["models"]
    assert provider.uses() == {"good": 2}
    assert provider.asked[0].model == "gemini-fake"


@pytest.mark.parametrize(
    ("does", "kind"),
    [
        (Does.UNAUTHORIZED, openai.AuthenticationError),
        (Does.FORBIDDEN, openai.PermissionDeniedError),
        (Does.NO_MODEL, openai.NotFoundError),
        (Does.OUT_OF_QUOTA, openai.RateLimitError),
        (Does.FAILED, openai.InternalServerError),
        (Does.CUT_BEFORE, openai.APIConnectionError),
    ],
)
def test_openai_sdk_sees_each_refusal(
    gpt: openai.OpenAI, provider: FakeProvider, does: Does, kind: type[openai.APIError]
) -> None:
    provider.plan("good", Behaviour(does))
    with pytest.raises(kind):
        gpt.chat.completions.create(model="gpt-fake", messages=SAY, extra_headers={MARKER: "a"})
    assert provider.with_marker("a")[0].does is does
    assert provider.processed("a") == 0


@pytest.mark.parametrize(
    ("does", "status"), [(Does.PAYMENT_REQUIRED, 402), (Does.OUT_OF_QUOTA, 400), (Does.OVERLOADED, 529)]
)
def test_anthropic_sdk_sees_each_refusal(
    claude: anthropic.Anthropic, provider: FakeProvider, does: Does, status: int
) -> None:
    provider.plan("good", Behaviour(does))
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(model="claude-fake", max_tokens=9, messages=SAY)
    assert caught.value.status_code == status


def test_unknown_and_misplaced_keys_are_refused(provider: FakeProvider) -> None:
    assert chat(provider, "nobody's").json()["error"]["code"] == "invalid_api_key"
    assert ask(provider, "/v1/chat/completions", CHAT, x_api_key="good").status == 401
    provider.revoke("good")
    assert chat(provider, "good").status == 401


def test_a_mistake_is_the_clients_whatever_the_key(provider: FakeProvider) -> None:
    provider.plan("bad", Behaviour(Does.PAYMENT_REQUIRED))
    for key in ("good", "bad", "nobody's"):
        assert ask(provider, "/v1/chat/completions", {"model": "m"}, authorization=f"Bearer {key}").status == 400
    assert ask(provider, "/v1/nothing", {}, authorization="Bearer good").status == 404


@pytest.mark.parametrize("tells", [Tells.RETRY_AFTER_MS, Tells.RESET, Tells.NOTHING])
def test_a_limit_lasts_as_long_as_it_says(provider: FakeProvider, tells: Tells) -> None:
    provider.plan("good", Behaviour(Does.RATE_LIMITED, for_s=0.3, tells=tells))
    began_s = time.monotonic()
    assert chat(provider, "good").status == 429
    while chat(provider, "good").status == 429:
        assert time.monotonic() - began_s < 2
        time.sleep(0.02)
    assert time.monotonic() - began_s >= 0.3
    assert provider.with_key("good")[0].told_wait_s == pytest.approx(0.3, abs=0.05)
    assert provider.processed("once") == 1


def test_a_slow_answer_takes_its_time_once(provider: FakeProvider) -> None:
    provider.plan("good", Behaviour(delay_s=0.2, times=1))
    began_s = time.monotonic()
    chat(provider, "good")
    assert 0.2 <= time.monotonic() - began_s < 2
    asked = provider.with_key("good")[0]
    assert asked.ended_s is None or asked.ended_s - asked.began_s >= 0.2


def test_requests_at_once_are_counted_by_key(provider: FakeProvider) -> None:
    provider.plan("good", Behaviour(delay_s=0.3))
    provider.plan("other")
    threads = [threading.Thread(target=chat, args=(provider, "good")) for _ in range(3)]
    for thread in threads:
        thread.start()
    chat(provider, "other")
    for thread in threads:
        thread.join()
    assert sorted(each.at_once for each in provider.with_key("good")) == [1, 2, 3]
    assert [each.at_once for each in provider.with_key("other")] == [1]


def test_a_cut_before_the_first_byte_has_or_has_not_done_the_work(provider: FakeProvider) -> None:
    for does, done in ((Does.CUT_BEFORE, 0), (Does.CUT_AFTER_WORK, 1)):
        provider.plan("good", Behaviour(does))
        with pytest.raises(http.client.RemoteDisconnected):
            chat(provider, "good")
        assert provider.processed("once") == done


@pytest.mark.parametrize("ending", [Ending.FIN, Ending.RST])
def test_a_cut_after_the_first_byte_has_done_the_work(provider: FakeProvider, ending: Ending) -> None:
    provider.plan("good", Behaviour(Does.CUT_AFTER, ending=ending))
    for streamed in (True, False):
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            chat(provider, "good", stream=streamed)
    assert provider.processed("once") == 2


def test_a_cut_stream_is_an_error_of_the_sdk(gpt: openai.OpenAI, provider: FakeProvider) -> None:
    provider.plan("good", Behaviour(Does.CUT_AFTER, events=3))
    stream = iter(gpt.chat.completions.create(model="gpt-fake", messages=SAY, stream=True))
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(openai.APIConnectionError):
        next(stream)


def test_silence_is_silence(provider: FakeProvider) -> None:
    provider.plan("good", Behaviour(Does.SILENT))
    with (
        openai.OpenAI(api_key="good", base_url=f"{provider.url}/v1", max_retries=0, timeout=0.2) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="gpt-fake", messages=SAY)
    (asked,) = provider.with_key("good")
    assert (asked.status, asked.processed) == (0, False)


def test_a_refresh_token_is_exchanged_once(provider: FakeProvider) -> None:
    provider.refresh_tokens.add("rt")

    def exchange(token: str) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
        connection.request("POST", TOKEN_PATH, f"grant_type=refresh_token&refresh_token={token}&client_id=c")
        with connection.getresponse() as response:
            answered = Answered(response)
        connection.close()
        return answered

    tokens = exchange("rt").json()
    assert chat(provider, tokens["access_token"]).status == 200
    assert exchange("rt").status == 400
    assert exchange(tokens["refresh_token"]).status == 200


def test_it_is_controlled_from_another_process() -> None:
    command = [sys.executable, "-m", "loadtests.fake_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            provider: Any = type("Elsewhere", (), {"port": port})
            plans = {"k": [{"does": "rate_limited", "for_s": 9, "tells": "retry_after_date"}]}
            assert ask(provider, "/_control/keys", plans, "PUT").json() == {"keys": 1}
            assert chat(provider, "k")["retry-after"].endswith(" GMT")
            (asked,) = ask(provider, "/_control/asked", method="GET").json()
            assert (asked["key"], asked["status"], asked["does"]) == ("k", 429, "rate_limited")
            assert ask(provider, "/_control/keys", {"k": [{"does": "sing"}]}, "PUT").status == 500
            ask(provider, "/_control/reset", method="GET")
            assert ask(provider, "/_control/asked", method="GET").json() == []
            assert ask(provider, "/_control/state", method="GET").json()["requests"] == 0
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT_USAGE), ("POST", SUBSCRIPTION_USAGE)])
def test_a_key_is_told_what_it_has_used(provider: FakeProvider, method: str, path: str) -> None:
    provider.allowances["good"] = Allowance(used=5, total=20)
    answered = ask(provider, path, {"useCache": True}, method, authorization="Bearer good")
    usage = answered.json()["usage"]
    assert answered.status == 200
    assert (usage["standard"]["orgTotalTokensUsed"], usage["standard"]["totalAllowance"]) == (5, 20)
    assert usage["startDate"] < usage["endDate"]
    assert ask(provider, path, None, method, authorization="Bearer bad").status == 401
    assert ask(provider, path, None, "PUT", authorization="Bearer good").status == 405
    provider.moved.add(path)
    assert ask(provider, path, None, method, authorization="Bearer good").status == 404
    assert provider.balances_asked == [(path, "good"), (path, "bad"), (path, "good"), (path, "good")]
    assert provider.asked == []
