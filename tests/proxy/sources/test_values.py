"""Every check returns the normalised text or says what it expected."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sources import values


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("/openai", "/openai"),
        ("/openai/", "/openai"),
        ("/", "/"),
        ("/v1.1/a-b_c~d", "/v1.1/a-b_c~d"),
        ("/a%2Fb/c:d@e", "/a%2Fb/c:d@e"),
        ("/...", "/..."),
    ],
)
def test_prefix(text: str, normalised: str) -> None:
    assert values.prefix(text) == normalised


@pytest.mark.parametrize(
    "text",
    [
        "",
        "openai",
        "//",
        "/a//b",
        "/a//",
        "/a b",
        "/a?b",
        "/a#b",
        "/.",
        "/a/../b",
        "/%2e%2E/b",
        "/a%2",
        "/ä",
        "/a\\b",
        "/a\n",
    ],
)
def test_prefix_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a path"):
        values.prefix(text)


@pytest.mark.parametrize(("text", "normalised"), [("", ""), ("/", ""), ("/_relay", "/_relay"), ("/_relay/", "/_relay")])
def test_health_prefix(text: str, normalised: str) -> None:
    assert values.health_prefix(text) == normalised


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("https://api.openai.com", "https://api.openai.com"),
        ("HTTPS://API.OpenAI.com", "https://api.openai.com"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api"),
        ("https://openrouter.ai/api/", "https://openrouter.ai/api/"),
        ("http://127.0.0.1:9001/Base", "http://127.0.0.1:9001/Base"),
        ("http://a:80", "http://a"),
        ("https://a:443/", "https://a/"),
        ("https://a:80", "https://a:80"),
        ("http://a:", "http://a"),
        ("http://[::1]:9001/base", "http://[::1]:9001/base"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("http://my_service.internal", "http://my_service.internal"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://a/%7Euser", "http://a/%7Euser"),
    ],
)
def test_target(text: str, normalised: str) -> None:
    assert values.target(text) == normalised


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api.openai.com", "http:// or https://"),
        ("ftp://a", "http:// or https://"),
        ("https:a", "http:// or https://"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://:80", "host"),
        ("http://a?b", "query"),
        ("http://a#", "fragment"),
        ("http://user:secret@a", "user name"),
        ("http://@a", "user name"),
        ("http://a:0", "port"),
        ("http://a:65536", "port"),
        ("http://a:99999999", "port"),
        ("http://a:b", "port"),
        ("http://a:+80", "port"),
        ("http://a:٣", "port"),
        ("http://a b", "spaces"),
        ("http://a\r\nb", "control"),
        ("http://a\\b", "backslashes"),
        ("http://[::1", "IPv6"),
        ("http://[::1]x", "port"),
        ("http://[fe80::1%25eth0]", "IPv6"),
        ("http://[127.0.0.1]", "IPv6"),
        ("http://a/../b", "plain segments"),
        ("http://a/b//c", "plain segments"),
        ("http://a/ä", "plain segments"),
        ("http://-a", "letters"),
        ("http://a..b", "letters"),
        (f"http://{'a' * 64}", "letters"),
        (f"http://{'ä' * 64}", "DNS labels"),
        ("http://a,b", "letters"),
        ("http://2130706433", "number"),
        ("http://127.1", "number"),
        ("http://0x7f000001", "number"),
        ("http://1.2.3.256", "number"),
    ],
)
def test_target_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        values.target(text)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::", "::"), ("[::1]", "::1"), ("LOCALHOST", "127.0.0.1")],
)
def test_listen_address(text: str, normalised: str) -> None:
    assert values.listen_address(text) == normalised


@pytest.mark.parametrize("text", ["", "*", "example.com", "127.0.0.1:80", "[::1", "fe80::1%eth0", "127.1"])
def test_listen_address_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an IP address"):
        values.listen_address(text)


@pytest.mark.parametrize(
    ("text", "normalised"), [("relaygate", "relaygate"), ("gw.example.com:8000", "gw.example.com:8000")]
)
def test_via(text: str, normalised: str) -> None:
    assert values.via(text) == normalised


@pytest.mark.parametrize("text", ["", "a b", "a\r\nb", "a,b", "a(b)", "a:b"])
def test_via_refused(text: str) -> None:
    with pytest.raises(ValueError, match="without spaces"):
        values.via(text)


@pytest.mark.parametrize("text", ["gpt-4o", "gpt-4o*", "*", "anthropic/claude-3.5:beta", "x" * 256])
def test_model_pattern(text: str) -> None:
    assert values.model_pattern(text) == text


@pytest.mark.parametrize("text", ["", "*gpt", "gpt-*-mini", "**", "a\nb", "x" * 257])
def test_model_pattern_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the name of a model"):
        values.model_pattern(text)


@pytest.mark.parametrize("usd", [0.0, 2.5, 10.0, 0.01875, 1e-9, 99_999.999999999, 1e5])
def test_price(usd: float) -> None:
    assert values.price(usd) == usd


@pytest.mark.parametrize("usd", [1e-10, 0.0000000015, 1.0000000001, 0.1 + 0.2])
def test_price_refused(usd: float) -> None:
    with pytest.raises(ValueError, match="a number of 9 decimals at most"):
        values.price(usd)


@pytest.mark.parametrize("text", ["", "2026-11", "x" * 64])
def test_version(text: str) -> None:
    assert values.version(text) == text


@pytest.mark.parametrize("text", ["x" * 65, "a\tb"])
def test_version_refused(text: str) -> None:
    with pytest.raises(ValueError, match="up to 64 printable"):
        values.version(text)


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_file_name_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the name of a file"):
        values.file_name(text)


@pytest.mark.parametrize(
    "check", [values.prefix, values.health_prefix, values.target, values.listen_address, values.host_name, values.via]
)
@given(text=st.text() | st.text(alphabet="/.:[]@?#%0123456789abxhtps").map(lambda rest: "http://" + rest))
def test_a_check_refuses_with_a_value_error_and_accepts_what_it_returned(
    check: Callable[[str], str], text: str
) -> None:
    try:
        normalised = check(text)
    except ValueError:
        return
    assert normalised.isascii()
    assert normalised.isprintable()
    assert check(normalised) == normalised
