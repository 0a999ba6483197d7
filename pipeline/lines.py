"""Log lines on their way to standard error: the supervisor's own, and those of all its processes.

    a stage, the fork server ── fd 2: a SEQPACKET socket, never waited for ──► Lines ──► Outlet's thread ──► stderr
                                                          the supervisor's own ──┘  └──► above the live view

One thread of one process writes, so lines do not mix, however long they are.  Standard error may be anything: a pipe
that nobody reads holds that thread, and nobody else.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

from pipeline import log
from pipeline.outlet import Lost, Outlet

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7)
_AT_ONCE: Final = 256  # messages taken before the loop looks at other things
_SOON_S: Final = 0.02
LAST_S: Final = 1.0
"""How long the end of a program waits for what is still to be written."""


class Lines:
    """``structlog``'s file in the supervisor; ``theirs`` is standard error (and output) of its processes."""

    def __init__(self, fd: int = 2) -> None:
        self.outlet = Outlet(fd, _told)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs = theirs
        for end in (self._ours, theirs):
            end.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.whose: Callable[[int], str] = lambda _pid: ""
        self.above: Callable[[str], None] | None = None  # the live view's place for them
        self._late = False
        self._encoding = sys.stderr.encoding or "utf-8"

    @property
    def theirs(self) -> int:
        """The descriptor that processes write to."""
        return self._theirs.fileno()

    def fileno(self) -> int:
        """The descriptor that is readable when there is something to `pump`."""
        return self._ours.fileno()

    def write(self, text: str) -> None:
        """A line of the supervisor's own, behind those that its processes have written so far."""
        self.pump()
        self._pass_on(text.encode("utf-8", "backslashreplace"), "supervisor")
        # As a rule it is out before anybody can see what it tells of; a stuck reader is waited for once.
        self._late = self._late and not self.outlet.idle
        self._late = self._late or not self.outlet.flush(_SOON_S)

    def flush(self) -> None:
        """`write` has done it."""

    def pump(self) -> None:
        """Take what processes have written."""
        for _ in range(_AT_ONCE):
            try:
                data, extra, _flags, _address = self._ours.recvmsg(log.LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except OSError:
                return
            pid = _CREDENTIALS.unpack(extra[0][2])[0] if extra else 0
            if data:
                self._pass_on(data, self.whose(pid) or f"pid {pid}")

    def _pass_on(self, data: bytes, source: str) -> None:
        if self.above:
            self.above(data.decode(errors="replace"))
            return
        if self._encoding.lower() not in ("utf-8", "utf8"):
            data = data.decode(errors="backslashreplace").encode(self._encoding, "backslashreplace")
        self.outlet.offer(data, source)

    def say(self, text: str) -> None:
        """A plain line for whoever has started the program."""
        self.write(f"{text}\n")

    def close(self) -> None:
        """Write what is still to be written, if that can be done soon."""
        self.pump()
        self.outlet.flush(LAST_S)
        for end in (self._ours, self._theirs):
            with contextlib.suppress(OSError):
                end.close()


def _told(lost: Lost) -> bytes:
    return log.lost(lost.count, lost.reason, of=dict(lost.by)).encode()
