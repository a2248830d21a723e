"""Which model a request is for, whatever its bytes."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.model_names import DEPLOYMENT, MODEL, in_body, in_path


@given(st.binary(max_size=100))
def test_no_bytes_raise(data: bytes) -> None:
    in_body(data)
    in_path(MODEL, data)
    in_path(DEPLOYMENT, b"/deployments/" + data)


def test_the_one_field_is_found_among_others_however_deep_they_are() -> None:
    assert in_body(b'{"a":[{"model":"no"}],"model":"yes","b":{"model":"no"}}') == "yes"
    assert in_body(b'{"a":{"model":"no"}}') == ""
