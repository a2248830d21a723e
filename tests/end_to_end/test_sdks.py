"""The official OpenAI and Anthropic SDKs, pointed at the relay: they notice no difference, except to truncations."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from loadtests.fake_answers import PROMPT_TOKENS, answer_words
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.harness import Seen
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

KEY = "sk-canary-5ecret-0123456789"
ASKED: Any = [{"role": "user", "content": "say something"}]
WHOLE = "".join(answer_words(8))


@pytest.fixture(name="gpt")
def fixture_gpt(relay: Relay) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=f"{relay.url}/up/v1", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(name="claude")
def fixture_claude(relay: Relay) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=KEY, base_url=f"{relay.url}/up", max_retries=0, timeout=20) as client:
        yield client


def test_openai_chat_completion(gpt: openai.OpenAI, seen: Seen) -> None:
    completion = gpt.chat.completions.create(model="gpt-fake", messages=ASKED)
    assert completion.choices[0].message.content == WHOLE
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == PROMPT_TOKENS
    assert seen.one().values("authorization") == [f"Bearer {KEY}".encode()]
    assert seen.one().values("user-agent")[0].startswith(b"OpenAI/Python")


def test_openai_chat_completion_streamed(gpt: openai.OpenAI) -> None:
    stream = gpt.chat.completions.create(
        model="gpt-fake", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == WHOLE
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_openai_responses(gpt: openai.OpenAI) -> None:
    response = gpt.responses.create(model="gpt-fake", input="say something")
    assert response.output_text == WHOLE


def test_openai_responses_streamed(gpt: openai.OpenAI) -> None:
    events = list(gpt.responses.create(model="gpt-fake", input="say something", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == WHOLE


def test_openai_models(gpt: openai.OpenAI) -> None:
    assert [model.id for model in gpt.models.list()] == ["gpt-fake", "gpt-fake-mini"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_openai_errors_arrive_as_their_classes(
    gpt: openai.OpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as caught:
        gpt.chat.completions.create(model=f"error-{status}", messages=ASKED)
    assert caught.value.status_code == status
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.code == "rate_limit_exceeded"


def test_openai_a_stream_that_is_cut_raises(gpt: openai.OpenAI) -> None:
    """Never a shorter answer that looks whole."""
    stream = gpt.chat.completions.create(
        model="gpt-fake", messages=ASKED, stream=True, extra_query={"cut_after_events": 4, "end": "fin"}
    )
    chunks = iter(stream)
    assert len(list(itertools.islice(chunks, 4))) == 4
    with pytest.raises(openai.APIConnectionError):
        next(chunks)


def test_openai_a_stream_that_is_left_cancels_the_upstream(gpt: openai.OpenAI, seen: Seen) -> None:
    stream = gpt.chat.completions.create(
        model="gpt-fake", messages=ASKED, stream=True, extra_query={"words": 1000, "interval_ms": 20}
    )
    list(itertools.islice(stream, 3))
    stream.close()
    eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")


def test_openai_retries_are_the_sdks_own(relay: Relay, seen: Seen) -> None:
    """`Retry-After` reaches the SDK; the relay itself repeats nothing."""
    with (
        openai.OpenAI(api_key=KEY, base_url=f"{relay.url}/up/v1", max_retries=1, timeout=20) as client,
        pytest.raises(openai.InternalServerError),
    ):
        client.chat.completions.create(model="error-500", messages=ASKED)
    assert len(seen.all()) == 2


def test_openai_no_route_is_an_api_error(relay: Relay) -> None:
    with (
        openai.OpenAI(api_key=KEY, base_url=f"{relay.url}/nowhere", max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as caught,
    ):
        client.models.list()
    assert caught.value.request_id


def test_openai_async_streams_at_once(relay: Relay) -> None:
    async def ask(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="gpt-fake", messages=ASKED, stream=True)
        return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{relay.url}/up/v1", max_retries=0) as client:
            return await asyncio.gather(*(ask(client) for _ in range(20)))

    assert asyncio.run(all_at_once()) == [WHOLE] * 20


def test_anthropic_message(claude: anthropic.Anthropic, seen: Seen) -> None:
    message = claude.messages.create(model="claude-fake", max_tokens=100, messages=ASKED)
    assert message.content[0].type == "text"
    assert message.content[0].text == WHOLE
    assert message.usage.output_tokens == 8
    assert KEY.encode() in b"".join(seen.one().values("x-api-key") + seen.one().values("authorization"))
    assert seen.one().values("anthropic-version")


def test_anthropic_message_streamed(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="claude-fake", max_tokens=100, messages=ASKED) as stream:
        assert "".join(stream.text_stream) == WHOLE
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 8


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (401, anthropic.AuthenticationError, "authentication_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_anthropic_errors_arrive_as_their_classes(
    claude: anthropic.Anthropic, status: int, kind: type[anthropic.APIStatusError], word: str
) -> None:
    with pytest.raises(kind) as caught:
        claude.messages.create(model=f"error-{status}", max_tokens=100, messages=ASKED)
    assert caught.value.status_code == status
    assert word in str(caught.value)
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "7"


def test_anthropic_a_stream_that_is_cut_raises(claude: anthropic.Anthropic) -> None:
    how = {"cut_after_events": 5, "end": "fin"}
    stream = claude.messages.create(model="claude-fake", max_tokens=100, messages=ASKED, stream=True, extra_query=how)
    events = iter(stream)
    assert len(list(itertools.islice(events, 4))) == 4  # of the five one is a ping, which the SDK keeps to itself
    with pytest.raises(Exception, match="without sending complete message body"):
        list(events)


def test_anthropic_async_streams_at_once(relay: Relay, upstream: UpstreamInThread) -> None:
    seen = Seen(upstream)

    async def ask(client: anthropic.AsyncAnthropic) -> str:
        async with client.messages.stream(model="claude-fake", max_tokens=100, messages=ASKED) as stream:
            return "".join([text async for text in stream.text_stream])

    async def all_at_once() -> list[str]:
        async with anthropic.AsyncAnthropic(api_key=KEY, base_url=f"{relay.url}/up", max_retries=0) as client:
            return await asyncio.gather(*(ask(client) for _ in range(20)))

    assert asyncio.run(all_at_once()) == [WHOLE] * 20
    assert len(seen.all()) == 20
