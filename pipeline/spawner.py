"""The supervisor's side of the fork server: start it, ask it for processes, start another when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from pipeline.forkserver import MAX_MESSAGE

_ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE_NS: Final = 10_000_000_000  # a warmed fork server answers in milliseconds; one that does not is stuck


class Spawned(NamedTuple):
    """An answer: the process of ``child`` exists (or does not, and why)."""

    child: str
    pid: int
    error: str


class Spawner:
    """One fork server after another.  ``hello`` is what each of them is told first (see `pipeline.forkserver`)."""

    def __init__(self, hello: Mapping[str, Any], reasons: int, stderr: int | None = None) -> None:
        self._hello, self._reasons, self._stderr = hello, reasons, stderr
        self._serial = 0
        self._waiting: dict[int, tuple[dict[str, Any], int]] = {}  # serial: request, time of sending (0: not yet)
        self.ready = False
        self.error = ""
        self.pid = 0
        self.pidfd = -1
        self.channel: socket.socket | None = None

    def start(self) -> socket.socket:
        """Start a fork server; the channel to watch.  It compiles first: requests wait until it is ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
        with theirs:
            arguments = [sys.executable, "-m", "pipeline.forkserver"]
            arguments += [str(n) for n in (theirs.fileno(), self._reasons, os.getpid())]
            process = subprocess.Popen(
                arguments,
                pass_fds=(theirs.fileno(), self._reasons),
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
            )
        self.pid, self.pidfd = process.pid, os.pidfd_open(process.pid)
        process.returncode = 0  # reaped through the pidfd, not by subprocess
        ours.setblocking(False)
        self.channel = ours
        ours.send(msgpack.packb(self._hello))
        return ours

    def spawn(self, request: dict[str, Any]) -> None:
        """Ask for a process."""
        self._serial += 1
        self._waiting[self._serial] = ({**request, "serial": self._serial}, 0)

    def flush(self, now: int) -> None:
        """Send what waits, as far as the fork server takes it."""
        if not self.ready or self.channel is None:
            return
        for serial, (request, sent) in self._waiting.items():
            if sent:
                continue
            try:
                self.channel.send(msgpack.packb(request))
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                return
            self._waiting[serial] = (request, now)

    def read(self) -> list[Spawned]:
        """Answers that have come."""
        answers: list[Spawned] = []
        while self.channel is not None:
            try:
                data = self.channel.recv(MAX_MESSAGE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                break  # it is dead; the pidfd says so, too
            answer = msgpack.unpackb(data)
            if "warm_s" in answer:
                self.ready, self.error = not answer["error"], answer["error"]
                continue
            request, _ = self._waiting.pop(answer["serial"])
            answers.append(Spawned(request["process"], answer["pid"], answer["error"]))
        return answers

    def cancel(self) -> list[str]:
        """Forget every request that was not sent; the children that thus get no process."""
        unsent = [serial for serial, (_, sent) in self._waiting.items() if not sent]
        return [str(self._waiting.pop(serial)[0]["process"]) for serial in unsent]

    def stuck(self, now: int) -> bool:
        """Whether an answer is overdue."""
        return any(sent and now - sent > PATIENCE_NS for _, sent in self._waiting.values())

    def kill(self) -> None:
        """SIGKILL the fork server."""
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> str:
        """Close what is left of a dead fork server; how it died.  Requests without an answer will be sent again."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        if self.channel is not None:
            self.channel.close()
        self.pid, self.pidfd, self.channel, self.ready = 0, -1, None, False
        self._waiting = {serial: (request, 0) for serial, (request, _) in self._waiting.items()}
        return describe(result.si_code, result.si_status) if result else "gone"


def describe(code: int, status: int) -> str:
    """How a process ended (si_code and si_status of waitid(2)) in words."""
    if code == os.CLD_EXITED:
        return f"left with status {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    return f"killed by {name}"


def kill_strangers(known: set[int]) -> int:
    """Kill all children of this process that are not ``known``; how many there were.

    A fork server that died between fork and answer leaves a stage of which nobody knows: it must not live.
    """
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listed:
        strangers = set(map(int, listed.read().split())) - known
    for pid in strangers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(strangers)
