"""A descriptor that may block, fail or go away, written to by a thread of its own: who offers text never waits.

What cannot be written is lost, and counted.  The thread may stand in a write for ever: it is a daemon, so the process
ends without it.
"""

from __future__ import annotations

import os
import select
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LIMIT: Final = 1 << 20  # bytes that may wait
STUCK: Final = "nobody reads them"


@dataclass
class Lost:
    """Pieces that were not written: how many, why the last of them, and whose they were."""

    count: int = 0
    reason: str = ""
    by: Counter[str] = field(default_factory=Counter)

    def add(self, source: str, reason: str) -> None:
        """One more."""
        self.count, self.reason = self.count + 1, reason
        if source:
            self.by[source] += 1

    def take(self, other: Lost) -> None:
        """Those of another, which has none then."""
        if other.count:
            self.count, self.reason = self.count + other.count, other.reason
            self.by += other.by
            other.count, other.by = 0, Counter()


class Outlet:
    """Writes to ``fd``, a piece after the other.  ``tell`` makes of what was lost a piece that says so."""

    def __init__(self, fd: int, tell: Callable[[Lost], bytes] | None = None) -> None:
        self._fd, self._tell, self._limit = fd, tell, LIMIT
        self._change = threading.Condition()  # held for moments, and never while writing
        self._queue: deque[tuple[bytes, str]] = deque()
        self._size = 0  # bytes in the queue and in the thread's hands
        self._refused = Lost()  # since it was full; until it is empty again all that is offered
        self._busy = self._torn = False
        self._thread: threading.Thread | None = None
        self.lost = 0  # ever
        self.reason = ""  # of the last loss

    def offer(self, data: bytes, source: str = "") -> None:
        """Have ``data`` written; never waits.  ``source``: whose it is, should it be lost."""
        with self._change:
            if self._refused.count or (self._size and self._size + len(data) > self._limit):
                self._refused.add(source, STUCK)
                self._count(STUCK)
                return
            self._queue.append((data, source))
            self._size += len(data)
            self._change.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
            self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether all that was offered was written, or is lost."""
        with self._change:
            return not (self._queue or self._busy or (self._tell and self._refused.count))

    def flush(self, within_s: float | None) -> bool:
        """Wait until it is idle; whether that came in time."""
        with self._change:
            return self._change.wait_for(lambda: self.idle, within_s)

    def take_refused(self) -> Lost:
        """What was refused, where there is no ``tell``: from now on it takes pieces again."""
        with self._change:
            lost = Lost()
            lost.take(self._refused)
        return lost

    def _count(self, reason: str) -> None:
        self.lost += 1
        self.reason = reason

    def _run(self) -> None:
        failed = Lost()
        while True:
            with self._change:
                while not self._queue and not (self._tell and self._refused.count):
                    self._change.wait()
                data, source = self._queue.popleft() if self._queue else (b"", "")
                if not data:
                    failed.take(self._refused)  # it is empty: what was refused comes behind all that was taken
                self._busy = True
            why = ""
            if failed.count and self._tell:
                why = self._write(self._tell(failed))
                if not why:
                    failed = Lost()
            if data and not why:
                why = self._write(data)
            with self._change:
                if data and why:
                    failed.add(source, why)
                    self._count(why)
                self._size -= len(data)
                self._busy = False
                self._change.notify_all()

    def _write(self, data: bytes) -> str:
        """Write it all; why that cannot be, or nothing."""
        left = memoryview(b"\n" + data if self._torn else data)  # a line of which the disk took a part ends here
        whole = len(left)
        try:
            while left:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:  # somebody else has made it so
                    ready = select.poll()
                    ready.register(self._fd, select.POLLOUT)
                    ready.poll()
        except OSError as error:
            self._torn = self._torn if len(left) == whole else self._tell is not None
            return error.strerror or str(error)
        self._torn = False
        return ""
