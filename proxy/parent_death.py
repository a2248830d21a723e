"""How a process hears that its parent is gone, killed or crashed: the kernel tells it (prctl(2), PR_SET_PDEATHSIG).

What the kernel watches is the thread that started the process, so that has to be one that lives as long as its process:
the main thread. When a process of several threads is killed, its children pass from thread to thread as these end, and
are told each time.
"""

import ctypes
import signal

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


def end_with_parent() -> None:
    """A `preexec_fn`: has the kernel send SIGTERM to the new process when its parent ends."""
    hear_of_parent_death(signal.SIGTERM)


def hear_of_parent_death(number: int) -> None:
    """Has the kernel send this process a signal when its parent ends; a parent that has ended before sends none."""
    _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
