"""Our cookie."""

import pytest

from admin.rules import cookies


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([b"relaygate=abc"], "abc"),
        ([b"a=1; relaygate=abc; b=2"], "abc"),
        ([b"a=1", b"relaygate=abc"], "abc"),
        ([b'relaygate="abc"'], "abc"),
        ([b"relaygate=a=b"], "a=b"),
        ([b"xrelaygate=abc; relaygate"], None),
        ([b"__Host-relaygate=abc"], None),
        ([b"\xff\xfe=;;=;"], None),
        ([], None),
    ],
)
def test_a_cookie_is_found(fields: list[bytes], value: str | None) -> None:
    assert cookies.found("relaygate", fields) == value


def test_over_tls_a_cookie_is_bound_to_the_host() -> None:
    name = cookies.name_of("https")
    assert cookies.kept(name, "abc", 60) == (
        "__Host-relaygate=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
    )


def test_in_clear_text_it_cannot_be() -> None:
    assert cookies.kept(cookies.name_of("http"), "", 0) == "relaygate=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
