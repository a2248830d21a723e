"""Whether a request with our cookie came from a page of ours."""

import pytest

from admin.rules.same_origin import is_json, is_same_origin


@pytest.mark.parametrize(
    ("site", "origin", "host", "same"),
    [
        ("same-origin", "https://admin.test", "admin.test", True),
        ("same-origin", None, "admin.test", True),
        ("none", None, "admin.test", True),
        (None, None, "admin.test", True),
        (None, "http://127.0.0.1:8001", "127.0.0.1:8001", True),
        (None, "http://[::1]:8001", "[::1]:8001", True),
        (None, "HTTPS://Admin.test", "admin.test:443", True),
        (None, "http://admin.test:80", "admin.test", True),
        ("cross-site", None, "admin.test", False),
        ("same-site", "https://admin.test", "admin.test", False),
        ("anything", None, "admin.test", False),
        (None, "https://evil.test", "admin.test", False),
        (None, "https://admin.test.evil.test", "admin.test", False),
        (None, "https://admin.test:8443", "admin.test", False),
        (None, "http://127.0.0.1:8000", "127.0.0.1:8001", False),
        (None, "null", "null", False),
        (None, "file://", "", False),
        (None, "", "", False),
        (None, "https://admin.test", "", False),
        ("same-origin", "https://evil.test", "admin.test", False),
    ],
)
def test_origin_and_fetch_metadata(site: str | None, origin: str | None, host: str, *, same: bool) -> None:
    assert is_same_origin(site=site, origin=origin, host=host) is same


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", " application/json "])
def test_json_is_told(content_type: str) -> None:
    assert is_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain; application/json"],
)
def test_what_a_form_can_send_is_no_json(content_type: str) -> None:
    assert not is_json(content_type)
