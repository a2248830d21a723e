"""The prefixes that are served where no file names any."""

from proxy.sources import values
from proxy.sources.default_routes import DEFAULT_ROUTES

PROMISED = """
    discord telegram openai claude gemini gnothink meta groq xai cohere huggingface together novita portkey fireworks
    openrouter sophnet cerebras
"""


def test_every_promised_prefix_is_there_and_leads_to_a_public_https_host() -> None:
    assert sorted(DEFAULT_ROUTES) == sorted(f"/{name}" for name in PROMISED.split())
    for prefix, target in DEFAULT_ROUTES.items():
        assert values.prefix(prefix) == prefix
        assert values.target(target) == target
        assert target.startswith("https://")
