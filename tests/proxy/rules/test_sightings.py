"""How old entries are, by the looker's clock and, where he has not looked, by their writers'."""

from proxy.rules.sightings import Sightings

LONG_S = 3.0
UNIX_S = 1_700_000_000.0


def written_s(data: bytes) -> float | None:
    return float(data) if data.replace(b".", b"").isdigit() else None


def seen(*looks: tuple[float, dict[bytes, bytes]]) -> Sightings:
    """What one sees who looks at these times, of a clock that began at UNIX_S."""
    sightings = Sightings(LONG_S, written_s)
    for now_s, found in looks:
        sightings.look(found, now_s, UNIX_S + now_s)
    return sightings


def at(seconds: float) -> bytes:
    return b"%.1f" % (UNIX_S + seconds)


def test_what_changes_is_young_whatever_its_writers_clock_says() -> None:
    sightings = seen((0, {}), (1, {b"a": at(-5000)}), (2, {b"a": at(-4999)}), (3, {b"a": at(-4998)}))
    assert sightings.younger(LONG_S, 5.9) == {b"a": at(-4998)}
    assert sightings.younger(LONG_S, 6) == {}
    assert sightings.older(LONG_S, 5.9) == []
    assert sightings.older(LONG_S, 6) == [b"a"]


def test_what_stands_still_grows_old() -> None:
    sightings = seen((0, {}), *((float(second), {b"a": at(1), b"b": at(second)}) for second in range(1, 5)))
    assert sightings.younger(LONG_S, 4) == {b"b": at(4)}
    assert sightings.older(LONG_S, 4) == [b"a"]


def test_what_lies_there_at_the_first_look_is_as_old_as_it_says() -> None:
    sightings = seen((10, {b"old": at(6), b"young": at(8), b"of-tomorrow": at(90_000), b"mute": b"?"}))
    assert sightings.younger(LONG_S, 10).keys() == {b"young", b"of-tomorrow", b"mute"}
    assert sightings.younger(LONG_S, 11).keys() == {b"of-tomorrow", b"mute"}
    assert sightings.younger(LONG_S, 13) == {}


def test_what_changed_while_nobody_looked_is_as_old_as_it_says() -> None:
    before = {b"stays": at(0), b"long-ago": at(0), b"just-now": at(0)}
    sightings = seen((0, before), (60, {b"stays": at(0), b"long-ago": at(10), b"just-now": at(59)}))
    assert sightings.younger(LONG_S, 60) == {b"just-now": at(59)}


def test_what_is_gone_is_forgotten() -> None:
    sightings = seen((0, {b"a": at(0)}), (1, {}), (2, {b"a": at(0)}))
    assert sightings.younger(LONG_S, 4.9) == {b"a": at(0)}, "it is new again"
    assert seen((0, {b"a": at(0)}), (1, {})).younger(LONG_S, 1) == {}
