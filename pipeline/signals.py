"""Signals that ask a supervisor to stop: caught from the first moment on, read when its loop is there to hear them."""

from __future__ import annotations

import signal
import socket
from functools import cache
from typing import Final

STOP: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """`STOP` as bytes of a socket, ``sock``.  A mask would not do: threads of a library may have been there before.

    A SIGHUP that is ignored already stays so: that is what nohup(1) asks for, and the terminal that it speaks of may
    go.  A SIGINT does not: every background job of a script has it ignored, and who sends one means it.
    """

    def __init__(self) -> None:
        self.sock, self._woken = socket.socketpair()
        for end in (self.sock, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in STOP:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def read(self) -> list[str]:
        """Names of the signals that have come."""
        try:
            return [signal.Signals(number).name for number in self.sock.recv(64)]
        except BlockingIOError:
            return []


@cache
def caught() -> Signals:
    """The process's signals: from the first call until it ends none of `STOP` ends it, so nothing half made stays."""
    return Signals()
