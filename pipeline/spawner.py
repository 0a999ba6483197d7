"""The supervisor's side of the fork server: start it, ask it for processes, start another when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline import messages, processes
from pipeline.forkserver import MAX_MESSAGE
from pipeline.graph import StageNode
from ring import layout

_ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE_NS: Final = 10_000_000_000  # a warmed fork server answers in milliseconds; one that does not is stuck
SLOW_NS: Final = 60_000_000_000  # compiling every kernel takes less on most machines
LOOK_NS: Final = 1_000_000_000
LOOKS: Final = 60  # that many in a row at which a compiling fork server had used no processor: it is stuck
_LOST: Final = -1
_MODULE: Final = "pipeline.forkserver"


class Spawned(NamedTuple):
    """An answer: the process of ``child`` exists (or does not, and why)."""

    child: str
    pid: int
    error: str


def request(
    pipeline: str, process: str, stages: Sequence[StageNode], words: Mapping[str, Any], bell: tuple[int, int, int]
) -> dict[str, Any]:
    """What a fork server is asked for: a new incarnation of ``stages``, whose epochs (in ``words``) go up by one.

    ``bell`` is the supervisor's doorbell.
    """
    made = []
    for stage in stages:
        w = words[stage.id].w
        w[layout.STAGE_EPOCH] += 1
        ports = [(p, f"{pipeline}.r.{r}", False) for p, r in stage.inputs.items()]
        ports += [(p, f"{pipeline}.r.{r}", True) for p, r in stage.outputs.items()]
        made.append(
            {
                "id": stage.id,
                "kind": stage.kind.name,
                "segment": f"{pipeline}.s.{stage.id}",
                "epoch": int(w[layout.STAGE_EPOCH]),
                "ports": ports,
                "params": dict(stage.params),
            }
        )
    return {
        "process": process,
        "pipeline": pipeline,
        "idle": stages[0].idle,
        "cpus": list(stages[0].cpus or ()),
        "bell": bell,
        "stages": made,
    }


class Spawner:
    """One fork server after another.

    ``hello`` is what each of them is told first (see `pipeline.forkserver`); ``segments``, by name, are descriptors
    that each inherits.  Inherited and not sent (SCM_RIGHTS): there is no limit of descriptors on the way, and no moment
    at which a fork server has some of them.  ``lines``: a descriptor for whatever it and its stages write to standard
    output and error; none: ours.
    """

    def __init__(
        self,
        hello: Mapping[str, Any],
        reasons: int,
        lines: int | None = None,
        segments: Mapping[str, int] = types.MappingProxyType({}),
    ) -> None:
        self._hello, self._reasons, self._lines, self._segments = hello, reasons, lines, segments
        self._once = False  # whether one of them has been ready
        self._serial = 0
        self._waiting: dict[int, tuple[dict[str, Any], int]] = {}  # serial: request, when sent
        self.ready = False
        self.error = ""
        self.pid = 0
        self.pidfd = -1
        self.channel: socket.socket | None = None
        self.killed = False
        self._started = self._looked = self._still = 0
        self._used = -1.0
        self._said = False

    def start(self) -> socket.socket:
        """Start a fork server; the channel to watch.  It compiles first: requests wait until it is ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
        with theirs:
            arguments = [sys.executable, "-m", _MODULE]
            arguments += [str(n) for n in (theirs.fileno(), self._reasons, os.getpid())]
            process = subprocess.Popen(
                arguments,
                pass_fds=(theirs.fileno(), self._reasons, *self._segments.values()),
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=self._lines,
                stderr=self._lines,
            )
        self.pid, self.pidfd = process.pid, os.pidfd_open(process.pid)
        process.returncode = 0  # reaped through the pidfd, not by subprocess
        ours.setblocking(False)
        self.channel = ours
        self._started = self._looked = time.monotonic_ns()
        self._used, self._still, self._said = -1.0, 0, False
        ours.send(messages.pack({**self._hello, "again": self._once, "segments": dict(self._segments)}))
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
            if sent > 0:
                continue
            try:
                self.channel.send(messages.pack(request))
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
            answer = messages.unpack(data)
            if "warm_s" in answer:
                self.ready, self.error = not answer["error"], answer["error"]
                self._once = self._once or self.ready
                continue
            request, _ = self._waiting.pop(answer["serial"])
            answers.append(Spawned(request["process"], answer["pid"], answer["error"]))
        return answers

    @property
    def asked(self) -> bool:
        """Whether a request is under way: a process may be there of which nobody knows yet."""
        return any(sent for _, sent in self._waiting.values())

    def cancel(self, names: Collection[str]) -> list[str]:
        """Forget the requests of the children ``names`` that no fork server has; those that thus get no process."""
        unsent = [serial for serial, (asked, sent) in self._waiting.items() if sent <= 0 and asked["process"] in names]
        return [str(self._waiting.pop(serial)[0]["process"]) for serial in unsent]

    def renew(self, make: Callable[[str], dict[str, Any]]) -> None:
        """Replace the requests that a fork server died with: it may have carried them out, so they need a new epoch."""
        for serial, (request, sent) in self._waiting.items():
            if sent == _LOST:
                self._waiting[serial] = ({**make(request["process"]), "serial": serial}, 0)

    def stuck(self, now: int) -> str:
        """Why the fork server has to be killed, or nothing; a killed one is not stuck."""
        if self.killed or self.pidfd < 0:
            return ""
        if any(sent > 0 and now - sent > PATIENCE_NS for _, sent in self._waiting.values()):
            return "does not answer"
        if not self.ready and now - self._looked >= LOOK_NS:
            self._looked = now
            used = processes.work_seconds(self.pid)
            self._still = self._still + 1 if used == self._used else 0
            self._used = used
            if self._still >= LOOKS:
                return "makes no progress"
        return ""

    def slow(self, now: int) -> bool:
        """Whether it has been compiling for so long that somebody should be told; True once."""
        if self._said or self.ready or self.pidfd < 0 or now - self._started < SLOW_NS:
            return False
        self._said = True
        return True

    def kill(self) -> None:
        """SIGKILL the fork server."""
        if self.pidfd >= 0:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> str:
        """Close what is left of a dead fork server; how it died.  What it had not answered waits for `renew`."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        if self.channel is not None:
            self.channel.close()
        self.pid, self.pidfd, self.channel, self.ready, self.killed = 0, -1, None, False, False
        self._waiting = {serial: (asked, _LOST if sent else 0) for serial, (asked, sent) in self._waiting.items()}
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
    """Kill all forks of our fork servers that are not ``known``, and theirs; how many there were.

    A fork server that died between fork and answer leaves a stage of which nobody knows: it must not live.  What one of
    them leaves behind becomes our child: hence looks until there is nobody.
    """
    killed = 0
    while strangers := [pid for pid in processes.own_children() if pid not in known and _forked(pid)]:
        for pid in strangers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        killed += len(strangers)
    return killed


def _forked(pid: int) -> bool:
    """Whether a process is a fork server of ours, or a fork of one: it has the command line of `Spawner.start`.

    Others become children of a supervisor that is process 1 of a container: what `docker exec` left behind, or the
    script that it was started from.  They are somebody's.
    """
    words = processes.arguments(pid)
    return _MODULE.encode() in words and words[-1] == str(os.getpid()).encode()


def reap_orphans(known: set[int]) -> int:
    """Wait for those children that have ended and are not ``known``; how many there were.

    The kernel gives every orphan to process 1 of its pid namespace, which in a container may be the supervisor: unless
    it waits for them they stay as zombies until no process can be made any more.
    """
    reaped = 0
    for pid in set(processes.own_children()) - known:
        with contextlib.suppress(ChildProcessError):
            reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
    return reaped
