"""An API of which nothing is known: the status decides, and a body is read as OpenAI's would be."""

from collections.abc import Sequence

from proxy.dialects import by_status, model_names, openai
from proxy.rules.credentials import Says, Verdict
from proxy.rules.headers import Header

CREDENTIAL_FIELD = b"authorization"

affinity = openai.affinity


def model(path: bytes, body: bytes) -> str:  # noqa: ARG001 - as other dialects
    """Returns what a JSON body names `model`; empty where that cannot be told."""
    return model_names.in_body(body)


def judge(status: int, fields: Sequence[Header], body: bytes, now_s: float) -> Verdict:  # noqa: ARG001 - likewise
    """Returns what an answer says of the credential by its status. A 3xx counts as a success."""
    if status < 400:
        return Verdict(Says.SUCCESS)
    return by_status.verdict(by_status.says(status), fields, now_s)
