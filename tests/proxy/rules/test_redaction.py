"""What a log line may say of a target (C81)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.redaction import redacted

CANARY = b"CANARYcanary1234567890"

text = st.text("ab;=%+/.", max_size=6).map(str.encode)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"key=%b", "key=***"),
        (b"a=1&key=%b&b=", "a=***&key=***&b=***"),
        (b"k%%65y=%b", "k%65y=***"),
        (b"%b", "***"),
        (b"a=1;sig=%b", "a=***&sig=***"),
        (b"a=b=%b", "a=***"),
        (b"=%b", "=***"),
        (b"&%b&", "***&***&***"),
        (b"X-Amz-Credential=%b%%2Fx", "X-Amz-Credential=***"),
    ],
)
def test_every_value_of_a_query_is_masked_and_the_names_stay(query: bytes, shown: str) -> None:
    assert redacted(b"/v1/models", query % CANARY) == f"/v1/models?{shown}"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"/tg/bot123456:AAH-secret/sendMessage", "/tg/bot***/sendMessage"),
        (b"/tg/BOT123456%3AAAH-secret/getMe", "/tg/BOT***/getMe"),
        (b"/discord/api/webhooks/123/secret", "/discord/api/webhooks/***"),
        (b"/discord/api/webhooks/123/secret/slack", "/discord/api/webhooks/***/slack"),
        (b"/slack/services/T00/B00/secret", "/slack/services/***"),
        (b"/x/sk-proj-abcdefghijklmnop/y", "/x/***/y"),
        (b"/x/AIzaSyAbcdefghijklmnop", "/x/***"),
        (b"/x/eyJhbGciOi.eyJzdWIiOi.c2ln", "/x/***"),
    ],
)
def test_credentials_at_their_known_places_in_a_path_are_masked(path: bytes, shown: str) -> None:
    assert redacted(path, b"") == shown


@pytest.mark.parametrize(
    "path", [b"/v1/chat/completions", b"/botany/x", b"/webhooks", b"/v1/files/file-1", b"/%C3%A4", b"/sk-x"]
)
def test_an_ordinary_path_stays(path: bytes) -> None:
    assert redacted(path, b"") == path.decode()


def test_bytes_that_are_no_text_do_not_stop_a_line() -> None:
    assert redacted(b"/\xff", b"\xfe=1") == "/\xff?\xfe=***"


@given(
    st.lists(st.tuples(text.map(lambda name: name.translate(None, b";=")), text), max_size=4), st.integers(0, 4), text
)
def test_no_value_survives_wherever_it_stands(parameters: list[tuple[bytes, bytes]], place: int, around: bytes) -> None:
    parts = [name + b"=" + value for name, value in parameters]
    parts.insert(place, b"name=" + around.translate(None, b";") + CANARY)
    assert CANARY.decode() not in redacted(b"/path", b"&".join(parts))
