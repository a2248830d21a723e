"""The listening sockets of a process group: one for the place of each worker, held by the parent as long as it lives.

Granian, on Linux, has each worker bind one of its own (SO_REUSEPORT). Such a socket dies with its worker, and the
kernel resets the connections that wait in it to be accepted. One that the parent holds goes, with what waits in it, to
the worker that comes next in that place.
"""

import contextlib
import os
import select
import socket
from pathlib import Path

from granian._granian import ListenerSpec, SocketHolder


def bind(host: str, port: int, backlog: int, count: int) -> list[SocketHolder]:
    """Returns sockets that share an address. None listens before a worker does. Raises OSError."""
    spec = ListenerSpec(host, port, backlog)
    return [spec.build() for _ in range(count)]


def stop_accepting(listener: int) -> None:
    """Has Granian in this process accept nothing more, while other processes go on accepting from the same socket.

    `shutdown` would hold for all of them, and Granian's own way closes idle connections at once. So the descriptor is
    made one of a socket that nobody connects to. It is first taken out of tokio's epoll, which watches the open file
    that others keep, not the descriptor.
    """
    for poll in _polls():
        with contextlib.suppress(OSError):  # a thread has closed it since it was found
            if f"tfd: {listener:8d} " in Path(f"/proc/self/fdinfo/{poll}").read_text():
                with select.epoll.fromfd(os.dup(int(poll))) as epoll:
                    epoll.unregister(listener)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind("")  # the kernel chooses an abstract name
        deaf.setblocking(False)
        deaf.listen(0)
        os.dup2(deaf.fileno(), listener)


def _polls() -> list[str]:
    """Returns this process's epoll descriptors."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the directory's own descriptor is closed by now
            if str(entry.readlink()) == "anon_inode:[eventpoll]":
                found.append(entry.name)
    return found
