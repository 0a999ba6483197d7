"""Doorbells: how a sleeper is woken without a lock.

A process that sleeps owns one pipe.  It writes (pid, descriptor, inode) of the pipe's write end into the header of
every ring that it is an end of; whoever has to wake it opens ``/proc/PID/fd/N`` once and writes a byte.  Nothing has a
name in a file system, so nothing is left behind, and nobody has to pass descriptors along.  The inode proves that the
pid and the descriptor were not reused for something else.  A ring that cannot be delivered (other pid namespace) costs
a delay, never a stall: every sleep is bounded.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from typing import Any


def _is_pipe(status: os.stat_result, inode: int) -> bool:
    return stat.S_ISFIFO(status.st_mode) and status.st_ino == inode


class Doorbell:
    """The sleeper's side: ``fd`` goes into its epoll set."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.inode = os.fstat(self._write).st_ino

    def announce(self, w: Any, asleep: int) -> None:
        """Write this doorbell's address behind the `asleep` word at ``asleep`` (C_ASLEEP or P_ASLEEP of a ring)."""
        w[asleep] = 0
        w[asleep + 1] = self._write
        w[asleep + 2] = self.inode

    def drain(self) -> None:
        """Swallow all rings so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 65536)

    def close(self) -> None:
        """Close both ends."""
        if self.fd >= 0:
            os.close(self.fd)
            os.close(self._write)
            self.fd = self._write = -1


class Ringer:
    """The waker's side: a cache of opened doorbells."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int, int], int] = {}

    def ring(self, pid: int, fd: int, inode: int) -> bool:
        """Wake the owner of doorbell (pid, fd, inode); False where it cannot be reached."""
        key = (pid, fd, inode)
        bell = self._open.get(key)
        if bell is None:
            # Nothing is remembered of a failure: the next ring may find the peer there.
            bell = self._connect(*key)
            if bell is None:
                return False
            self._open[key] = bell
        try:
            os.write(bell, b"!")
        except BlockingIOError:
            pass  # full of rings: it will wake
        except BrokenPipeError:
            os.close(self._open.pop(key))
            return False
        return True

    def _connect(self, pid: int, fd: int, inode: int) -> int | None:
        if pid <= 0:
            return None
        self._drop_dead()
        path = f"/proc/{pid}/fd/{fd}"
        try:
            # Looked at before it is opened: the pid may be another program's by now, and opening its device is no joke.
            if not _is_pipe(os.stat(path), inode):
                return None
            bell = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return None
        if _is_pipe(os.fstat(bell), inode):
            return bell
        os.close(bell)
        return None

    def _drop_dead(self) -> None:
        """Close bells that nobody listens to any more: a neighbour that restarts often must not cost descriptors."""
        poller = select.poll()
        keys = {bell: key for key, bell in self._open.items()}
        for bell in keys:
            poller.register(bell, 0)  # POLLERR: no reader is left
        for bell, _ in poller.poll(0) if keys else ():
            del self._open[keys[bell]]
            os.close(bell)

    def close(self) -> None:
        """Close everything."""
        for bell in self._open.values():
            os.close(bell)
        self._open.clear()
