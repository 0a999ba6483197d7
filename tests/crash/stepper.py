"""Compiled code, one instruction at a time: what a ``kill -9`` would leave in shared memory at each of them.

A killed process leaves exactly what it had stored, so the shared memory is copied after every instruction that changed
it, and each copy is put back later as the scene of a crash.  This proves what plain Python cannot: that the *compiler*
kept the order of the stores.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_TRACEME, _SINGLESTEP = 0, 9


def _ptrace(request: int, pid: int) -> None:
    if _libc.ptrace(request, pid, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def can_trace() -> bool:
    """Whether this machine lets a process trace its child (some containers do not)."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _libc.ptrace(_TRACEME, 0, None, None) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Watch:
    """Memory to be looked at after every instruction: so by memcmp, which is fast, against a copy."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        """``pieces`` are arrays of words that somebody else may change."""
        self.views = [memoryview(piece).cast("B") for piece in pieces]
        self._live = [ctypes.addressof(ctypes.c_char.from_buffer(view)) for view in self.views]
        self._copies = [ctypes.create_string_buffer(bytes(view), len(view)) for view in self.views]

    def changed(self) -> bool:
        """Whether a piece differs from how it was at the last call."""
        found = False
        for view, live, copy in zip(self.views, self._live, self._copies, strict=True):
            if _libc.memcmp(live, copy, len(view)):
                ctypes.memmove(copy, live, len(view))
                found = True
        return found

    def image(self) -> list[bytes]:
        """All pieces as they were at the last call of `changed`."""
        return [copy.raw for copy in self._copies]

    def restore(self, image: Sequence[bytes]) -> None:
        """Make the pieces what they were."""
        for view, piece in zip(self.views, image, strict=True):
            view[:] = piece


def step_through(work: Callable[[], object], watch: Watch, limit: int) -> Iterator[int]:
    """Run ``work`` in a forked child; yield the instruction number whenever what is watched differs from before.

    The child stands still while the caller looks at it.  ``limit`` is the most instructions.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})  # the two take turns: on one processor a turn costs half
    pid = os.fork()
    if pid == 0:
        try:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(9)
    lives = True
    try:
        _, status = os.waitpid(pid, 0)
        lives = os.WIFSTOPPED(status)
        assert lives, status
        watch.changed()
        for count in range(limit):
            _ptrace(_SINGLESTEP, pid)
            _, status = os.waitpid(pid, 0)
            lives = os.WIFSTOPPED(status)
            if not lives:
                raise ChildProcessError(f"the traced child ended: {os.waitstatus_to_exitcode(status)}")
            if os.WSTOPSIG(status) == signal.SIGSTOP:
                return
            if os.WSTOPSIG(status) != signal.SIGTRAP:
                raise ChildProcessError(f"the traced child got signal {os.WSTOPSIG(status)}")
            if watch.changed():
                yield count
        raise TimeoutError(f"more than {limit:,} instructions")
    finally:
        os.sched_setaffinity(0, processors)
        if lives:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
