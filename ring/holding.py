"""Who lives holds: a lock on a segment that lasts as long as any process of the pipeline that has it by descriptor.

A pid says who lives only to those who share its pid namespace.  Containers may share /dev/shm and nothing else
(``--ipc``, a volume), and to each of them the other's processes are not there.  A lock, flock(2), belongs to the open
file description, which the supervisor's children inherit: the kernel lets go of it when the last of them has ended,
however it ended, and everybody who can open the segment sees it.
"""

from __future__ import annotations

import fcntl
import os
import time

_PATIENCE_S = 1.0  # who looks (`held`) has the lock shared for microseconds
_DEATH_S = 0.5  # what a killed supervisor's stages take to be gone, many times over


def hold(fd: int) -> bool:
    """Hold the segment behind a descriptor; False where others do."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        else:
            return True


def held(fd: int) -> bool:
    """Whether somebody holds the segment; ``fd`` is a descriptor that the caller has opened by its name."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def still_held(path: str | os.PathLike[str]) -> bool:
    """Whether somebody holds the segment at ``path`` who is not just being killed, as a dead one's stages are."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        until = time.monotonic() + _DEATH_S
        while held(fd):
            if time.monotonic() > until:
                return True
            time.sleep(0.005)
    finally:
        os.close(fd)
    return False
