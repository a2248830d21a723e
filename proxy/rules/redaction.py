"""What of a request target may be logged: no value of a query parameter, and no part of a path that is a credential.

APIs put secrets under too many names to list (`key`, `sig`, `X-Amz-Credential`, `k%65y`), so every value is masked, and
a parameter without a value too, since it may be one. In paths, Telegram, Discord and Slack have their credentials at
known places.
"""

import re

SEPARATOR = re.compile(rb"[&;]")
PATH_SECRETS = (
    re.compile(rb"(?i)(?<=/bot)[0-9]+(?::|%3a)[^/]*"),
    re.compile(rb"(?i)(?<=/webhooks/)([0-9]+)/[^/]+"),
    re.compile(rb"(?<=/services/)T[^/]+/B[^/]+/[^/]+"),
    # Text that looks like a credential wherever it stands: sk-..., AIza..., a JWT.
    re.compile(rb"(?:sk-|pk-|rk-|xai-|gsk_|hf_|flow_|fk-|AIza|eyJ)[A-Za-z0-9_.-]{12,}"),
)
MASK = b"***"


def redacted(path: bytes, query: bytes) -> str:
    """Returns a target for the log, with every secret replaced by `***`; the names of query parameters stay."""
    for pattern in PATH_SECRETS:
        path = pattern.sub(MASK, path)
    parameters = [part.partition(b"=") for part in SEPARATOR.split(query)] if query else []
    masked = b"&".join(name + b"=" + MASK if equals else MASK for name, equals, _ in parameters)
    return (path + b"?" + masked if query else path).decode("latin-1")
