"""Which model a request is for. Any bytes; what cannot be told is the empty text."""

import re

import msgspec

NAME_CHARS_MAX = 256


class Named(msgspec.Struct):
    """The one field of a request that is looked for; the decoder skips the others without building them."""

    model: str = ""


FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
BODY = msgspec.json.Decoder(Named)
# In any case, as Azure takes paths. Azure OpenAI: /openai/deployments/NAME/chat/completions
DEPLOYMENT = re.compile(rb"(?i)/deployments/([^/?]+)")
# /v1beta/models/NAME:generateContent; Vertex AI: /v1/projects/P/locations/L/publishers/google/models/NAME:rawPredict
MODEL = re.compile(rb"(?i)/(?:models|tunedModels)/([^/:?]+)")


def in_body(body: bytes) -> str:
    """Returns what a JSON body names `model`."""
    if not body:
        return ""
    try:
        return usable(BODY.decode(body).model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def may_be_another(body: bytes) -> bool:
    """Tells whether servers may take a JSON body for one of another model than its `model`.

    In Go they take a field for `model` that differs from it in case alone; OpenRouter goes on to another of `models`.
    """
    try:
        # Names that are no UTF-8 are read too: servers in Go do, and the decoder of `in_body` passes them over.
        names = FIELDS.decode(body.decode("utf-8", "replace"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return any(name != "model" and name.lower() in ("model", "models") for name in names)


def in_path(pattern: re.Pattern[bytes], path: bytes) -> str:
    """Returns what a path names where the pattern says."""
    match = pattern.search(path)
    return usable(match[1].decode("latin-1")) if match else ""


def usable(name: str) -> str:
    """Returns a name that is short and printable; of another, which no upstream has, nothing."""
    return name if len(name) <= NAME_CHARS_MAX and name.isprintable() else ""
