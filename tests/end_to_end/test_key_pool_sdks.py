"""The official OpenAI and Anthropic SDKs through a route with a key pool: they notice nothing of keys that fail."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from loadtests.fake_answers import answer_words
from loadtests.fake_provider_keys import Behaviour, Does
from tests.end_to_end.calls import CLIENTS_KEY
from tests.end_to_end.key_pool import Pool

ASKED: Any = [{"role": "user", "content": "say something"}]
WHOLE = "".join(answer_words(8))


@pytest.fixture(name="gpt")
def fixture_gpt(pool: Pool) -> Iterator[openai.OpenAI]:
    url = f"{pool.system.url}/{pool.number}/openai/v1"
    with openai.OpenAI(api_key=CLIENTS_KEY, base_url=url, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(name="claude")
def fixture_claude(pool: Pool) -> Iterator[anthropic.Anthropic]:
    url = f"{pool.system.url}/{pool.number}/anthropic"
    with anthropic.Anthropic(api_key=CLIENTS_KEY, base_url=url, max_retries=0, timeout=20) as client:
        yield client


def test_openai(pool: Pool, gpt: openai.OpenAI) -> None:
    failing, good = pool.add(2)
    pool.plan([failing], Behaviour(Does.OUT_OF_QUOTA))
    for _ in range(3):
        completion = gpt.chat.completions.create(model="gpt-fake", messages=ASKED)
        assert completion.choices[0].message.content == WHOLE
    stream = gpt.chat.completions.create(model="gpt-fake", messages=ASKED, stream=True)
    assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices) == WHOLE
    assert gpt.responses.create(model="gpt-fake", input="say something").output_text == WHOLE
    events = gpt.responses.create(model="gpt-fake", input="say something", stream=True)
    assert list(events)[-1].type == "response.completed"
    assert [model.id for model in gpt.models.list()] == ["gpt-fake", "gpt-fake-mini"]
    assert len(pool.used(failing)) == 1
    assert len(pool.used(good)) == 7


def test_anthropic(pool: Pool, claude: anthropic.Anthropic) -> None:
    """An empty balance is a 400 there, as a client's mistake is."""
    failing, good = pool.add(2)
    pool.plan([failing], Behaviour(Does.OUT_OF_QUOTA))
    for _ in range(3):
        message = claude.messages.create(model="claude-fake", max_tokens=100, messages=ASKED)
        assert message.content[0].type == "text"
        assert message.content[0].text == WHOLE
    with claude.messages.stream(model="claude-fake", max_tokens=100, messages=ASKED) as stream:
        assert "".join(stream.text_stream) == WHOLE
    assert claude.messages.count_tokens(model="claude-fake", messages=ASKED).input_tokens
    assert len(pool.used(failing)) == 1
    assert len(pool.used(good)) == 5


def test_a_cut_stream_raises(pool: Pool, gpt: openai.OpenAI) -> None:
    (key,) = pool.add(1)
    pool.plan([key], Behaviour(Does.CUT_AFTER, events=4))
    chunks = iter(gpt.chat.completions.create(model="gpt-fake", messages=ASKED, stream=True))
    assert len(list(itertools.islice(chunks, 4))) == 4
    with pytest.raises(openai.APIConnectionError):
        next(chunks)
    assert len(pool.used(key)) == 1


def test_the_last_answer_is_the_sdks_own_error(pool: Pool, gpt: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    (key,) = pool.add(1)
    pool.plan([key], Behaviour(Does.RATE_LIMITED, for_s=60))
    with pytest.raises(openai.RateLimitError) as limited:
        gpt.chat.completions.create(model="gpt-fake", messages=ASKED)
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.InternalServerError) as none_left:
        gpt.chat.completions.create(model="gpt-fake", messages=ASKED)
    assert none_left.value.status_code == 503
    assert 55 <= int(none_left.value.response.headers["retry-after"]) <= 60
    with pytest.raises(anthropic.InternalServerError):  # limits are of a model
        claude.messages.create(model="gpt-fake", max_tokens=100, messages=ASKED)


def test_many_at_once(pool: Pool) -> None:
    failing, *_ = pool.add(3)
    pool.plan([failing], Behaviour(Does.FAILED))
    url = f"{pool.system.url}/{pool.number}/openai/v1"

    async def ask(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="gpt-fake", messages=ASKED, stream=True)
        return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(api_key=CLIENTS_KEY, base_url=url, max_retries=0) as client:
            return await asyncio.gather(*(ask(client) for _ in range(20)))

    assert asyncio.run(all_at_once()) == [WHOLE] * 20
