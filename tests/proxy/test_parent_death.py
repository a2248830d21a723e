"""The kernel's word of a parent's death. That workers drain at it is proved in tests/end_to_end/test_processes.py."""

import os
import signal
import subprocess
import sys

from proxy.parent_death import end_with_parent
from tests.end_to_end.process_tree import is_alive
from tests.end_to_end.waiting import eventually

PARENT = """
import subprocess, sys, time
from proxy.parent_death import end_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=end_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    eventually(lambda: not is_alive(child), what="the child's end")


def test_a_child_without_the_word_lives_on() -> None:
    """So that it is this word which ends the other."""
    source = PARENT.replace(", preexec_fn=end_with_parent", "")
    assert end_with_parent.__name__ not in source.splitlines()[3]
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert is_alive(child)
    os.kill(child, signal.SIGKILL)
