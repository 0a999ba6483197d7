"""A forked child that runs one function; waiting for it says how it ended."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 60.0


class Child:
    """``with Child(function, *args)``: it leaves with 0 unless the function raised; killed at the end if need be."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.pid = os.fork()
        self._code: int | None = None
        if self.pid == 0:
            code = 1
            try:
                function(*args)
                code = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)

    def kill(self) -> int:
        """``kill -9``; the exit code."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end: its exit code, negative for a signal."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            until(self.ended, "the child's end")
        self.kill()

    def ended(self) -> bool:
        """Whether it has ended."""
        if self._code is not None:
            return True
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return pid != 0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; too long is a failure that names it."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.0005)
