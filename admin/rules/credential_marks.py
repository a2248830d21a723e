"""What of a credential may be seen: its ends, whose it is, and how it is named. Pure."""

import hashlib

UNKNOWN = "unknown"
# By prefix; of two that fit, the longer one stands first.
PROVIDERS = (
    ("sk-ant-", "anthropic"),
    ("sk-or-", "openrouter"),
    ("sk-", "openai"),
    ("AIza", "gemini"),
    ("fk-", "factory"),
    ("gsk_", "groq"),
    ("xai-", "xai"),
    ("pplx-", "perplexity"),
    ("r8_", "replicate"),
    ("hf_", "huggingface"),
    ("nvapi-", "nvidia"),
)
KEY_PREFIX = "key_"
"""Ids of keys begin with it, and those of no other credentials."""
ENDS = 4
ID_NUMBERS = 10**6
"""What a new id has behind its time; a batch of one moment is smaller than this."""


def masked(secret: str) -> str:
    """The first and the last four characters; of one that is shorter than 24, a sixth of it at each end."""
    shown = min(ENDS, len(secret) // 6)
    return f"{secret[:shown]}...{secret[len(secret) - shown :]}"


def provider(secret: str) -> str:
    return next((name for prefix, name in PROVIDERS if secret.startswith(prefix)), UNKNOWN)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def search_text(credential_id: str, secret_masked: str, notes: str) -> str:
    """What a search looks through."""
    return f"{credential_id} {secret_masked} {notes}".lower()


def new_ids(now_ms: int, first: int, count: int) -> list[str]:
    """Ids in ascending order. `first` is random, below ID_NUMBERS - count: it tells batches of one moment apart."""
    return [f"{KEY_PREFIX}{now_ms:013d}{number:06d}" for number in range(first, first + count)]
