"""What tells a machine that stood still from a fault."""

import ctypes
import time

from tests.end_to_end.waiting import eventually
from tests.standstills import NOTED_S, Standstills


def test_a_standstill_is_noted_and_those_before_are_not() -> None:
    standstills = Standstills()
    began_s = time.monotonic()
    ctypes.PyDLL(None).usleep(int((NOTED_S + 0.2) * 1e6))  # holds the interpreter's lock
    (lasted_s, *_) = eventually(lambda: standstills.since(began_s), what="the note")
    assert lasted_s >= NOTED_S
    assert standstills.since(time.monotonic() + 3600) == []
