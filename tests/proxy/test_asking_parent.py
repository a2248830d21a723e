"""What a worker asks of its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from proxy.asking_parent import RENEW, ask_for_renewal

TELLS = f"""
import multiprocessing, signal
from proxy.asking_parent import ask_for_renewal

signal.signal({int(RENEW)}, lambda *_: print("asked", flush=True))
child = multiprocessing.get_context("fork").Process(target=ask_for_renewal)
child.start()
child.join()
assert child.exitcode == 0
"""


def test_the_parent_hears_it() -> None:
    said = subprocess.run([sys.executable, "-c", TELLS], capture_output=True, text=True, timeout=20, check=True)
    assert said.stdout == "asked\n"


class Gone:
    """A parent that has died: another process has become this one's."""

    pid = os.getppid() + 1


@pytest.mark.parametrize("parent", [None, Gone()])
def test_nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch, parent: Gone | None) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(os, "kill", lambda *arguments: asked.append(arguments))
    ask_for_renewal()
    assert asked == []
    monkeypatch.setattr(Gone, "pid", os.getppid())
    ask_for_renewal()
    assert asked == ([] if parent is None else [(os.getppid(), signal.SIGUSR2)])
