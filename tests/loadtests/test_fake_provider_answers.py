"""Which documents the fake provider answers with; how it sends and cuts them is in `test_fake_provider.py`."""

import pytest

from loadtests.fake_provider_answers import document_of, models_of
from loadtests.fake_provider_errors import Api
from loadtests.fake_provider_requests import Asked
from loadtests.fake_requests import Fate, Recorded


@pytest.mark.parametrize(
    ("api", "path", "field"),
    [
        (Api.OPENAI, "/v1/chat/completions", "choices"),
        (Api.OPENAI, "/v1/responses", "output"),
        (Api.OPENAI, "/v1/models", "object"),
        (Api.ANTHROPIC, "/v1/messages", "stop_reason"),
        (Api.ANTHROPIC, "/v1/messages/count_tokens", "input_tokens"),
        (Api.ANTHROPIC, "/v1/models", "has_more"),
        (Api.GEMINI, "/v1beta/models", "models"),
        (Api.GEMINI, "/v1beta/models/g:generateContent", "candidates"),
    ],
)
def test_each_path_has_its_document(api: Api, path: str, field: str) -> None:
    asked = Asked("k", api, path, 0.0, 1, Recorded(1, 1, b"", 0.0, Fate()), model="m")
    assert field in document_of(asked, 3)


def test_each_api_lists_its_models() -> None:
    assert len({frozenset(models_of(api)) for api in Api}) == len(Api)
