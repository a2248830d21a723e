"""Which model a request is for, whatever its bytes."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.model_names import DEPLOYMENT, MODEL, in_body, in_path, may_be_another


@given(st.binary(max_size=100))
def test_no_bytes_raise(data: bytes) -> None:
    in_body(data)
    may_be_another(data)
    in_path(MODEL, data)
    in_path(DEPLOYMENT, b"/deployments/" + data)


def test_a_name_in_another_case_is_told() -> None:
    """Go's decoder takes either, and the last one counts."""
    assert may_be_another(b'{"model":"a","Model":"b"}')
    assert may_be_another(b'{"MODE\\u004c":"b"}')
    assert may_be_another(b'{"model":"a","\xff":1,"Model":"b"}'), "Go reads on behind what is no text"
    assert not may_be_another(b'{"model":"a","x":{"Model":"b","models":["b"]}}')
    assert not may_be_another(b'{"model":')


def test_alternatives_are_told() -> None:
    """OpenRouter, "Model fallbacks": where the first of them fails, the next one answers."""
    assert may_be_another(b'{"model":"a","models":["b"]}')
    assert may_be_another(b'{"models":["a","b"]}')


def test_the_one_field_is_found_among_others_however_deep_they_are() -> None:
    assert in_body(b'{"a":[{"model":"no"}],"model":"yes","b":{"model":"no"}}') == "yes"
    assert in_body(b'{"a":{"model":"no"}}') == ""
