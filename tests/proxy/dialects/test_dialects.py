"""The map of the package: one of all names for each dialect, and none of them raises."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Dialect
from proxy.dialects import guess, of
from proxy.rules.bans import BANS_NOBODY
from proxy.rules.credential_fields import CLIENT_FIELDS
from proxy.rules.credentials import Says
from tests.proxy.dialects.bodies import anthropic

every = st.sampled_from(Dialect)
fields = st.lists(
    st.tuples(st.sampled_from([b"content-encoding", b"content-type", b"retry-after", b"date"]), st.binary(max_size=20)),
    max_size=3,
)


@pytest.mark.parametrize(
    ("host", "dialect"),
    [
        ("api.openai.com", Dialect.OPENAI),
        ("API.OpenAI.com.", Dialect.OPENAI),
        ("eu.api.openai.com", Dialect.OPENAI),
        ("my.openai.azure.com", Dialect.OPENAI),
        ("api.groq.com", Dialect.OPENAI),
        ("api.anthropic.com", Dialect.ANTHROPIC),
        ("generativelanguage.googleapis.com", Dialect.GEMINI),
        ("aiplatform.googleapis.com", Dialect.GEMINI),
        ("europe-west4-aiplatform.googleapis.com", Dialect.GEMINI),
        ("api.openai.com.evil.example", Dialect.GENERIC),
        ("notapi.anthropic.com", Dialect.GENERIC),
        ("127.0.0.1", Dialect.GENERIC),
        ("", Dialect.GENERIC),
    ],
)
def test_a_host_tells_its_dialect(host: str, dialect: Dialect) -> None:
    assert guess(host) is dialect


@pytest.mark.parametrize("dialect", Dialect)
def test_each_wants_its_credential_in_a_field_that_a_client_may_use_too(dialect: Dialect) -> None:
    assert of(dialect).credential_field in CLIENT_FIELDS


@pytest.mark.parametrize(
    ("dialect", "path", "status", "says"),
    [
        (Dialect.ANTHROPIC, b"/claude/v1/messages", 401, Says.DEAD),
        (Dialect.ANTHROPIC, b"/claude/v1/organizations/me", 401, Says.FORBIDDEN),
        (Dialect.ANTHROPIC, b"/claude/v1/organizations/me", 402, Says.OUT_OF_QUOTA),
        (Dialect.OPENAI, b"/v1/chat/completions", 401, Says.UNAUTHORIZED),
        (Dialect.OPENAI, b"/v1/organization/costs", 401, Says.FORBIDDEN),
        # As a server may read them.
        (Dialect.OPENAI, b"/v1/%6Frganization/costs", 401, Says.FORBIDDEN),
        (Dialect.OPENAI, b"/v1//organization/costs", 401, Says.FORBIDDEN),
        (Dialect.OPENAI, b"/v1/./x/../organization/costs", 401, Says.FORBIDDEN),
        (Dialect.OPENAI, b"/v1\\Organization;a=b/costs", 401, Says.FORBIDDEN),
        (Dialect.OPENAI, b"/v1/organizations", 401, Says.UNAUTHORIZED),
        (Dialect.GEMINI, b"/v1/organization/costs", 401, Says.UNAUTHORIZED),
    ],
)
def test_a_path_that_wants_another_kind_of_key_bans_none(
    dialect: Dialect, path: bytes, status: int, says: Says
) -> None:
    body = anthropic("authentication_error", "invalid x-api-key") if status == 401 else b""
    assert of(dialect).verdict(path, status, [], body, 1e9).says is says


@given(every, st.integers(100, 999), fields, st.binary(max_size=100), st.floats(0, 1e11))
def test_whatever_comes_there_is_a_verdict(
    dialect: Dialect, status: int, answered: list[tuple[bytes, bytes]], body: bytes, now_s: float
) -> None:
    verdict = of(dialect).judge(status, answered, body, now_s)
    assert (verdict.says is Says.SUCCESS) is (status < 400)


@given(every, fields, st.binary(max_size=100))
def test_a_403_that_says_nothing_known_bans_nobody(
    dialect: Dialect, answered: list[tuple[bytes, bytes]], body: bytes
) -> None:
    assert of(dialect).judge(403, answered, body, 1e9).says in BANS_NOBODY


@given(every, st.sampled_from([400, 404, 405, 409, 413, 415, 422]), fields, st.binary(max_size=100))
def test_a_clients_own_fault_says_nothing(
    dialect: Dialect, status: int, answered: list[tuple[bytes, bytes]], body: bytes
) -> None:
    assert of(dialect).judge(status, answered, body, 1e9).says is Says.NOTHING


json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "code", "type", "message", "details", "violations", "quotaId", "messages", "input"]
            )
            | st.sampled_from(
                ["contents", "parts", "role", "content", "system", "metadata", "model", "retryDelay", "@type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(every, json, st.sampled_from([400, 401, 403, 404, 429, 500]))
def test_any_document_can_be_read(dialect: Dialect, document: object, status: int) -> None:

    body = msgspec.json.encode(document)
    api = of(dialect)
    api.judge(status, [], body, 1e9)
    assert isinstance(api.model(b"/v1/models/x:y", body), str)
    assert api.affinity(b"/v1", body) is None or len(api.affinity(b"/v1", body) or b"") == 16
