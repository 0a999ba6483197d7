"""Each difference becomes a file that explains it, written by a thread beside the data path.

`Evidence.offer` takes copies of the kernel's words (an event and a record, `stages.compare.layout`) and returns at
once.  One daemon thread builds the file (`stages.compare.finding`) and writes it, a few packets a system call, so that
duty cycles which share the interpreter with it wait for some tenths of a millisecond at most.  What cannot be written
is said once, and costs nothing else.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event
from typing import Any, Final

from stages.compare.finding import build
from stages.compare.layout import events, records

_FIRST: Final = 4  # files at once; after them one each _EVERY_NS
_EVERY_NS: Final = 1_000_000_000
_WAITING: Final = 8  # differences on their way to the thread: 64 KiB each
_CLOSE_S: Final = 2.0
_STALE_S: Final = 60.0


class Evidence:
    """Writes files ``PREFIX-TIME-N.pcapng`` into ``folder``, the newest ``keep`` of which stay; ``log`` is structlog's.

    ``clock``: monotonic ns, for tests.
    """

    def __init__(self, folder: str, prefix: str, keep: int, log: Any, *, clock: Any = time.monotonic_ns) -> None:
        self.folder, self.prefix, self.keep, self.log = folder, prefix, keep, log
        self.left_out = 0  # differences without a file since the last one, because they came too fast
        self._clock = clock
        self._names = re.compile(rf"{re.escape(prefix)}-(\d{{8}}T\d{{6}}\.\d{{3}}Z)-(\d+)\.pcapng")
        self._queue: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._left: Event | None = None  # set when the thread has ended; None: there is none
        self._files: deque[str] | None = None  # ours in the folder, oldest first
        self._full_at = 0  # monotonic ns at which the allowance is whole again
        self._said = ""

    def offer(self, event: Any, record: Any, mask: str = "") -> str | None:
        """Have the file of a difference written; its path, or None: too many.  Never waits.

        ``event`` and ``record`` are copies that the caller leaves alone from now on; ``mask`` names the mask in force.
        """
        now = self._clock()
        allowed = max(self._full_at, now) + _EVERY_NS - now <= _FIRST * _EVERY_NS
        if self.keep <= 0 or not allowed or self._queue.qsize() >= _WAITING:
            self.left_out += 1
            return None
        self._full_at = max(self._full_at, now) + _EVERY_NS
        if self._left is None:
            self._left = Event()
            _thread.start_new_thread(self._run, (self._left,))  # Thread.start() would wait until it runs
        wall = time.time_ns() - time.monotonic_ns()
        ms = (wall + int(event[events.TIME])) // 1_000_000
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"
        path = os.path.join(self.folder, f"{self.prefix}-{stamp}-{int(record[records.EVENT])}.pcapng")
        self._queue.put((path, event, record, wall, mask, self.left_out))
        self.left_out = 0
        return path

    def close(self) -> None:
        """Write what is on its way; at most two seconds."""
        if self._left is not None:
            self._queue.put(None)
            self._left.wait(_CLOSE_S)
            self._left = None

    def _run(self, left: Event) -> None:
        while (job := self._queue.get()) is not None:
            path, event, record, wall, mask, left_out = job
            more = {"number": int(record[records.EVENT])} | ({"left_out": left_out} if left_out else {})
            try:
                self._write(path, build(event, record, wall, compare_id=self.prefix, mask=mask, **more))
                self._said = ""
            except Exception as error:  # whatever a folder's name or a damaged record may bring: the thread goes on
                self._complain(path, error)
        left.set()

    def _complain(self, path: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = f"{reason}: there is a file where a folder should be"
        if self._said != reason:
            self.log.warning("cannot write what explains a difference", path=path, reason=reason)
            self._said = reason

    def _write(self, path: str, pieces: Iterator[bytes]) -> None:
        os.makedirs(self.folder, 0o700, exist_ok=True)
        if self._files is None:
            self._files = deque(self._found())
        while len(self._files) >= self.keep:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, self._files[0]))
            self._files.popleft()
        name = os.path.basename(path)
        unfinished = os.path.join(self.folder, f".{name}.tmp")
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "wb", buffering=0) as file:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
            os.rename(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
        self._files.append(name)

    def _found(self) -> list[str]:
        """Our files of this and earlier runs, by time; what a killed process left unfinished goes."""
        found: list[tuple[str, int, str]] = []
        for entry in os.scandir(self.folder):
            whole = entry.name[1:-4] if entry.name.startswith(".") and entry.name.endswith(".tmp") else entry.name
            if not (m := self._names.fullmatch(whole)):
                continue
            if whole == entry.name:
                found.append((m[1], int(m[2]), whole))
            elif time.time() - entry.stat().st_mtime > _STALE_S:
                os.unlink(entry.path)
        return [name for _, _, name in sorted(found)]
