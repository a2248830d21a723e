"""How access tokens look, and what may be seen of one."""

from hypothesis import given
from hypothesis import strategies as st

from admin.rules import access_tokens as rules


def test_a_token_is_flow_and_64_digits() -> None:
    text = rules.text_of(bytes(range(32)))
    assert text == "flow_000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    assert (rules.shown(text), len(rules.shown(text))) == ("flow_0001...1e1f", 16)
    assert rules.is_text(text)
    assert not any(map(rules.is_text, (text[:-1], text + "0", text.upper(), "tok_1", rules.shown(text), "")))
    assert rules.id_of(bytes(12)) == "tok_000000000000000000000000"


@given(st.binary(min_size=32, max_size=32))
def test_any_random_bytes_make_a_token(random: bytes) -> None:
    assert rules.is_text(rules.text_of(random))
