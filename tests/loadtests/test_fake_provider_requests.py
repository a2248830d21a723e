"""A provider takes its key from where its API wants it, and sees every credential that comes."""

import pytest

from loadtests.fake_provider_errors import Api
from loadtests.fake_provider_requests import Asked, api_of, credentials_of, key_of, mistake_in, model_of
from loadtests.fake_requests import Fate, Recorded

HEADERS = [
    (b"Authorization", b"Bearer a"),
    (b"X-Api-Key", b"b"),
    (b"api-key", b"c"),
    (b"x-goog-api-key", b"d"),
]


def recorded(target: str = "/v1/models", *headers: tuple[bytes, bytes], method: str = "POST") -> Recorded:
    request = Recorded(1, 1, b"", 0.0, Fate(), method, target.encode())
    request.headers = list(headers)
    return request


def test_all_credentials_are_seen() -> None:
    found = credentials_of(recorded("/v1/models?key=e&alt=sse", *HEADERS))
    assert found == {"authorization": "Bearer a", "x-api-key": "b", "api-key": "c", "x-goog-api-key": "d", "?key": "e"}
    assert credentials_of(recorded("/v1/models", *HEADERS[:1], *HEADERS[:1])) == {"authorization": "Bearer a, Bearer a"}


@pytest.mark.parametrize(
    ("api", "credentials", "key"),
    [
        (Api.OPENAI, {"authorization": "Bearer a", "x-api-key": "b"}, "a"),
        (Api.OPENAI, {"x-api-key": "b"}, ""),
        (Api.OPENAI, {"authorization": "a"}, ""),
        (Api.ANTHROPIC, {"authorization": "Bearer a", "x-api-key": "b"}, "b"),
        (Api.ANTHROPIC, {"authorization": "Bearer a"}, "a"),
        (Api.GEMINI, {"x-goog-api-key": "d", "?key": "e"}, "d"),
        (Api.GEMINI, {"?key": "e", "authorization": "Bearer a"}, "e"),
    ],
)
def test_the_key_stands_where_the_api_wants_it(api: Api, credentials: dict[str, str], key: str) -> None:
    assert key_of(api, credentials) == key


def test_the_api_is_told_by_the_path_or_by_the_version() -> None:
    version = (b"anthropic-version", b"2023-06-01")
    assert api_of(recorded(), "/v1/models") is Api.OPENAI
    assert api_of(recorded("/v1/models", version), "/v1/models") is Api.ANTHROPIC
    assert api_of(recorded(), "/v1/messages") is Api.ANTHROPIC
    assert api_of(recorded(), "/v1beta/models/g:generateContent") is Api.GEMINI


def test_the_model_is_in_the_body_or_in_the_path() -> None:
    assert model_of(Api.OPENAI, "/v1/chat/completions", {"model": "m"}) == "m"
    assert model_of(Api.GEMINI, "/v1beta/models/g:generateContent", {"model": "m"}) == "g"


def test_what_an_api_demands_is_missed() -> None:
    path = "/v1/messages"
    assert mistake_in(recorded(), path, {"model": "m", "messages": []}) == "Missing required parameter: 'max_tokens'."
    assert mistake_in(recorded(), path, {"model": "m", "messages": [], "max_tokens": 1}) is None
    assert mistake_in(recorded(method="GET"), "/v1beta/models", {}) is None


def test_a_record_as_json_leaves_the_bytes_out() -> None:
    document = Asked("k", Api.OPENAI, "/", 1.0, 1, recorded()).document()
    assert document["key"] == "k"
    assert "recorded" not in document
