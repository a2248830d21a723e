"""What other programs write is understood, and what is theirs stays."""

import pytest

from admin.rules.auth_documents import DocumentError, read, understood, with_state
from admin.rules.oauth import Kept, State

STATE = State("rt-1", "at-1", 5, 4, "digest")


def test_the_documented_shape() -> None:
    document = read(
        b'\xef\xbb\xbf {"refresh_token": "rt-0", "api_key": "fk-0", "expires_at": 1234567890000, "x": [1]}\n'
    )
    assert understood(document, 7) == Kept("rt-0", "fk-0", 1_234_567_890_000, 7)
    said = {"refresh_token": "rt-1", "api_key": "at-1", "expires_at": 5, "x": [1]}
    assert with_state(document, STATE) == said
    assert list(with_state(document, STATE)) == list(document)


def test_the_providers_own_spelling_stays() -> None:
    document = read(b'{"access_token": "at-0", "refresh_token": "rt-0"}')
    assert understood(document, 7) == Kept("rt-0", "at-0", None, 7)
    assert with_state(document, STATE) == {"access_token": "at-1", "refresh_token": "rt-1", "expires_at": 5}


@pytest.mark.parametrize("nothing", [b"", b" \n", b"{}", b'{"refresh_token": null, "api_key": "", "expires_at": null}'])
def test_a_file_that_says_nothing(nothing: bytes) -> None:
    assert understood(read(nothing), 7) == Kept(None, None, None, 7)


@pytest.mark.parametrize(
    ("time", "expires_at_ms"),
    [
        (b"1234567890", 1_234_567_890_000),
        (b"1234567890000.7", 1_234_567_890_000),
        (b'"1234567890000"', 1_234_567_890_000),
        *((odd, None) for odd in (b"0", b"-1", b"1e99", b"true", b'"soon"', b'"\xc2\xb2"', b"[]", b"1" * 30)),
    ],
)
def test_times_in_other_forms(time: bytes, expires_at_ms: int | None) -> None:
    assert understood(read(b'{"expires_at": ' + time + b"}"), 7).expires_at_ms == expires_at_ms


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{canary", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b'["canary"]', "it is not a JSON object"),
        (b'{"refresh_token": 5}', "its refresh_token is not ASCII text without spaces"),
        (b'{"api_key": "can\\nary"}', "its api_key is not ASCII text without spaces"),
    ],
)
def test_what_is_no_such_file(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        understood(read(data), 7)
    assert str(caught.value) == problem
