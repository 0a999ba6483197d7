"""Doorbells: how a sleeper is woken without a lock.

A process that sleeps owns one pipe.  It writes (pid, descriptor, inode) of the pipe's write end into the header of every
ring that it is an end of; whoever has to wake it opens ``/proc/PID/fd/N`` once and writes a byte.  Nothing has a name in a
file system, so nothing is left behind, and nobody has to pass descriptors along.  The inode proves that the pid and the
descriptor were not reused for something else.  A ring that cannot be delivered (other pid namespace) costs a delay, never
a stall: every sleep is bounded.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any


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
        for fd in (self.fd, self._write):
            os.close(fd)


class Ringer:
    """The waker's side: a cache of opened doorbells."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int, int], int] = {}

    def ring(self, pid: int, fd: int, inode: int) -> bool:
        """Wake the owner of doorbell (pid, fd, inode); False where it cannot be reached."""
        key = (pid, fd, inode)
        bell = self._open.get(key)
        if bell is None:
            bell = self._open[key] = self._connect(*key)
        if bell < 0:
            return False
        try:
            os.write(bell, b"!")
        except BlockingIOError:
            pass  # full of rings: it will wake
        except BrokenPipeError:
            self._forget(pid)
            return False
        return True

    def _connect(self, pid: int, fd: int, inode: int) -> int:
        self._forget(pid)
        try:
            bell = os.open(f"/proc/{pid}/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1
        status = os.fstat(bell)
        if stat.S_ISFIFO(status.st_mode) and status.st_ino == inode:
            return bell
        os.close(bell)
        return -1

    def _forget(self, pid: int) -> None:
        for key in [k for k in self._open if k[0] == pid]:
            bell = self._open.pop(key)
            if bell >= 0:
                os.close(bell)

    def close(self) -> None:
        """Close everything."""
        for bell in self._open.values():
            if bell >= 0:
                os.close(bell)
        self._open.clear()
