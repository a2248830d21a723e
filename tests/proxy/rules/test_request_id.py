"""Which request ids of clients are believed (C82)."""

import pytest

from proxy.rules.request_id import sane


@pytest.mark.parametrize(
    "value", [b"a", b"0f8fad5b-d9cb-469f-a165-70867728950e", b"req_1.2~3", b"x" * 128, b"!#$%&'*+^`|"]
)
def test_an_id_of_token_characters_is_believed(value: bytes) -> None:
    assert sane(value) == value


@pytest.mark.parametrize(
    "value", [b"", b"x" * 129, b"a b", b'a"', b"a\n", b"\xff", b"a,b", b"<a>", b"{}", b"a/b", b"a\\", b"a\0"]
)
def test_any_other_is_not(value: bytes) -> None:
    assert sane(value) is None


def test_no_id_is_no_id() -> None:
    assert sane(None) is None
