"""What the lab needs of this machine: programs, processes by pid and start time, signals that wait their turn."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ring.segment import process_start

# Program → the Debian package that has it.
PROGRAMS = {"ip": "iproute2", "nginx": "nginx-light", "curl": "curl"}


class LabError(Exception):
    """Something the lab cannot go on without; the text says what and how to mend it."""


class Stopped(BaseException):
    """A signal asked the lab to stop; carries its number.  Not an Exception: no handler may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into ``Stopped``, within ``heard`` only and never inside ``hold``.

    So nothing is made without being written down, and nothing interrupts the clearing up.
    """

    def __init__(self) -> None:
        self._held = 1
        self._pending = 0
        self._raised = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self._pending = number
        self._deliver()

    def _deliver(self) -> None:
        here = threading.current_thread() is threading.main_thread()
        if self._pending and here and not self._held and not self._raised:
            self._raised = True
            raise Stopped(self._pending)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Signals stop the block."""
        self._held -= 1
        try:
            self._deliver()
            yield
        finally:
            self._held += 1

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Put signals off until the block is left."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._deliver()


def require_root() -> None:
    """Raise LabError unless this process may make namespaces and TAP devices."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces and TAP devices: run it as root (sudo python -m tools.lab)")
    if not Path("/dev/net/tun").exists():
        raise LabError("/dev/net/tun is missing: load the kernel module (modprobe tun)")


def require_programs(programs: Sequence[str] = tuple(PROGRAMS)) -> None:
    """Raise LabError naming the Debian packages of the programs that are missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = " ".join(PROGRAMS[name] for name in missing)
        raise LabError(f"missing {', '.join(missing)}: apt-get install {packages}")


def run(*command: str, timeout: float = 30, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and give its output; LabError with its own words if it fails.

    ``timeout`` in seconds; ``env`` is added to this process's environment.
    """
    around = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=around)
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(command)}: not done after {timeout:g} s") from late
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise LabError(f"{' '.join(command)}: {said}")
    return done.stdout


def wait_until(seen: Callable[[], Any], timeout: float, what: str) -> Any:
    """The first true value of ``seen()``; LabError saying ``what`` was awaited after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := seen()):
        if time.monotonic() > end:
            raise LabError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.02)
    return value


def end_process(pid: int, started: int, patience: float) -> None:
    """SIGTERM, and SIGKILL after ``patience`` seconds, to that very process; another one with its pid is left alone."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if process_start(pid) != started:
            return
        os.kill(pid, number)
        end = time.monotonic() + seconds
        while process_start(pid) == started and time.monotonic() < end:
            time.sleep(0.01)
