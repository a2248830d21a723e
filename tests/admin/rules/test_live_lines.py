"""Lines of the live log: filters, and how they go out."""

import json
from typing import Any

import pytest

from admin.rules.live_lines import Asked, event, lost

LINE = {"route": "/openai", "status": 429, "credential": "key_1", "model": "gpt-5"}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, True),
        ({"route": "/openai"}, True),
        ({"route": "/open"}, False),
        ({"status": "429"}, True),
        ({"status": "4xx"}, True),
        ({"status": "5xx"}, False),
        ({"status": "42"}, False),
        ({"key": "key_1", "model": "gpt-5"}, True),
        ({"key": "key_2"}, False),
        ({"model": "gpt-5", "status": "200"}, False),
    ],
)
def test_all_that_is_asked_for_has_to_be_so(asked: dict[str, Any], wanted: object) -> None:
    assert Asked(**asked).wants(LINE) is wanted


def test_a_line_without_a_field_is_not_of_it() -> None:
    assert not Asked(status="4xx").wants({})
    assert not Asked(model="m").wants({"model": None})
    assert Asked().wants({})


def test_a_line_is_one_event_whatever_is_in_it() -> None:
    text = event({"path": "/a\nb\r\u2028"})
    assert text.endswith(b"\n\n")
    assert text.count(b"\n") == 2
    assert b"\r" not in text
    assert json.loads(text.removeprefix(b"data: ")) == {"path": "/a\nb\r\u2028"}
    assert lost(3) == b'event: lost\ndata: {"lines":3}\n\n'
