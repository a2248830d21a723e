"""Backends are the same after they were fields."""

import pytest

from proxy.shared_state.backend_names import field_of, name_of


@pytest.mark.parametrize("name", [("api", "api-10.0.0.1-80"), ("a", ""), ("gr\u00fcn", "b")])
def test_a_name_is_the_same_after_it_was_a_field(name: tuple[str, str]) -> None:
    assert name_of(field_of(name)) == name


@pytest.mark.parametrize("field", [b"", b"a", b"\xff\0b"])
def test_what_is_no_backends_field(field: bytes) -> None:
    assert name_of(field) is None
