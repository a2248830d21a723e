"""The pattern of large answers shows every shift and every gap; a path finds its behaviour."""

import pytest

from loadtests import fake_behaviours
from loadtests.fake_behaviours import Behaviour, behaviour_of, pattern_slice


def test_pattern_slices_join_to_one_pattern() -> None:
    whole = pattern_slice(0, 200_000)
    assert b"".join(pattern_slice(start, 7_919) for start in range(0, 200_000, 7_919))[:200_000] == whole
    assert whole[65536:131072] != whole[:65536]


@pytest.mark.parametrize(
    ("path", "behaviour"),
    [
        ("/echo", fake_behaviours.echo),
        ("/echo/any/thing", fake_behaviours.echo),
        ("/base/-/answer", fake_behaviours.answer),
        ("/v1beta/models/g:generateContent", fake_behaviours.gemini),
        ("/echoes", fake_behaviours.not_found),
    ],
)
def test_a_path_finds_its_behaviour(path: str, behaviour: Behaviour) -> None:
    assert behaviour_of(path) is behaviour
