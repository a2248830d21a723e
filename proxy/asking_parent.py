"""What a worker asks of its parent, by a signal."""

import multiprocessing
import os
import signal

RENEW = signal.SIGUSR2
"""To a parent: load the files of the certificate again, and replace the workers if they hold another one."""


def ask_for_renewal() -> None:
    """Has this worker's parent look at the certificate. One that has died is not asked: its pid may be another's."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None and os.getppid() == parent.pid:
        os.kill(parent.pid, RENEW)
