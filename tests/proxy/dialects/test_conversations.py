"""What names a conversation."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.conversations import PARTS_MAX, TEXT_CHARS_MAX, fingerprint, texts

lists = st.lists(st.text(max_size=5), max_size=4)


@given(lists, lists)
def test_two_lists_of_texts_never_run_into_one(one: list[str], two: list[str]) -> None:
    assert (fingerprint(one) == fingerprint(two)) is (one == two)


def test_the_work_is_bounded() -> None:
    assert fingerprint(["x" * TEXT_CHARS_MAX]) == fingerprint(["x" * TEXT_CHARS_MAX * 2])
    assert len(list(texts(["x"] * PARTS_MAX * 2))) == PARTS_MAX


def test_a_part_without_a_text_counts_as_its_place() -> None:
    assert list(texts("a")) == ["a"]
    assert list(texts(["a", {"text": "b"}, {"image_url": "c"}, 7])) == ["a", "b", "", ""]
    assert list(texts(None)) == []


@given(st.text(max_size=20))
def test_any_text_has_a_digest_of_16_bytes(text: str) -> None:
    assert len(fingerprint([text, "\ud800"])) == 16
