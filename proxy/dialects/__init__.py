"""Whose API an upstream speaks: one file an API, each with the same few names. Pure, and none of them ever raises.

- `model(path, body)`: which model a request is for, `""` where that cannot be told.
- `affinity(path, body)`: 16 bytes that name the request's conversation, or None.
- `judge(status, fields, body, now_s)`: what an answer says of the credential, a `Verdict`. `fields` have names in lower
  case, `body` is the first of an error's, `codings.BODY_BYTES_MAX` at most, coded or cut as it may be.
- `CREDENTIAL_FIELD`: the field in which the API wants a credential.
- `OTHER_KEYS`: parts of paths, in lower case, for which it wants another kind of key than for its models.

`openai.py`, `anthropic.py`, `gemini.py` and `generic.py` are the APIs. `by_status.py` says what a status means,
`error_bodies.py` reads what errors say of themselves and `codings.py` makes that plain, `model_names.py` and
`conversations.py` read what requests do. `usage/` reads what tokens an answer took, whichever dialect it comes from.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from proxy.config import Dialect
from proxy.dialects import anthropic, gemini, generic, openai
from proxy.rules.credentials import Says, Verdict
from proxy.rules.headers import Header
from proxy.rules.targets import as_served

REFUSALS = frozenset((Says.DEAD, Says.UNAUTHORIZED))


class Api(NamedTuple):
    """One of the files here."""

    model: Callable[[bytes, bytes], str]
    affinity: Callable[[bytes, bytes], bytes | None]
    judge: Callable[[int, Sequence[Header], bytes, float], Verdict]
    credential_field: bytes
    other_keys: tuple[bytes, ...] = ()

    def verdict(self, path: bytes, status: int, fields: Sequence[Header], body: bytes, now_s: float) -> Verdict:
        """Returns what `judge` does, but for a path that wants another kind of key.

        There a good one is called invalid, and any client can ask for it. `path` is what the upstream was asked for.
        """
        verdict = self.judge(status, fields, body, now_s)
        if verdict.says in REFUSALS and self.other_keys:
            served = as_served(path)
            if any(part in served for part in self.other_keys):
                return Verdict(Says.FORBIDDEN)
        return verdict


APIS = {
    Dialect.OPENAI: Api(openai.model, openai.affinity, openai.judge, openai.CREDENTIAL_FIELD, openai.OTHER_KEYS),
    Dialect.ANTHROPIC: Api(
        anthropic.model, anthropic.affinity, anthropic.judge, anthropic.CREDENTIAL_FIELD, anthropic.OTHER_KEYS
    ),
    Dialect.GEMINI: Api(gemini.model, gemini.affinity, gemini.judge, gemini.CREDENTIAL_FIELD),
    Dialect.GENERIC: Api(generic.model, generic.affinity, generic.judge, generic.CREDENTIAL_FIELD),
}

HOSTS = {
    "api.anthropic.com": Dialect.ANTHROPIC,
    "generativelanguage.googleapis.com": Dialect.GEMINI,
    "aiplatform.googleapis.com": Dialect.GEMINI,
    **dict.fromkeys(
        (
            "api.openai.com",
            "api.cerebras.ai",
            "api.deepinfra.com",
            "api.deepseek.com",
            "api.fireworks.ai",
            "api.groq.com",
            "api.mistral.ai",
            "api.moonshot.ai",
            "api.moonshot.cn",
            "api.novita.ai",
            "api.perplexity.ai",
            "api.siliconflow.cn",
            "api.siliconflow.com",
            "api.together.ai",
            "api.together.xyz",
            "api.x.ai",
            "api.z.ai",
            "dashscope.aliyuncs.com",
            "dashscope-intl.aliyuncs.com",
            "integrate.api.nvidia.com",
            "open.bigmodel.cn",
            "openrouter.ai",
            "router.huggingface.co",
        ),
        Dialect.OPENAI,
    ),
}
SUFFIXES = (
    # Vertex AI has a host a region: europe-west4-aiplatform.googleapis.com.
    ("-aiplatform.googleapis.com", Dialect.GEMINI),
    (".aiplatform.googleapis.com", Dialect.GEMINI),
    (".api.openai.com", Dialect.OPENAI),
    (".openai.azure.com", Dialect.OPENAI),
)


def of(dialect: Dialect) -> Api:
    """Returns what speaks a dialect."""
    return APIS[dialect]


def guess(host: str) -> Dialect:
    """Returns the dialect of a target's host, without its port; GENERIC where it is not known."""
    host = host.lower().rstrip(".")
    if host in HOSTS:
        return HOSTS[host]
    return next((dialect for suffix, dialect in SUFFIXES if host.endswith(suffix)), Dialect.GENERIC)
