"""A real supervisor in a process of its own, for tests: a small config, its control socket, its stages."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline import control

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 120.0
# Where a test does not say otherwise no deadline of the product ends it: a process may get no processor for seconds.
TIMELESS = {"heartbeat_timeout_ms": 60_000, "shutdown_ms": 60_000}
_serial = itertools.count()

CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.c0]
backend = "socket"
path = "{folder}/c0"
server = true
[netdev.hn0]
network = {{ backend = "stream", path = "{folder}/net", server = true }}
guest = {{ backend = "stream", path = "{folder}/guest", server = true }}
[filter.m0]
type = "filter-mirror"
netdev = "hn0"
queue = "tx"
outdev = "c0"
stall_timeout = 0
{more}
"""


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for a condition; its value."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"never: {what or condition}")


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that nobody reaps has)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


class Running:
    """A pipeline: a stream netdev, a mirror, a chardev; stages run as plain Python, so nothing is compiled."""

    def __init__(self, folder: Path, supervisor: str = "", more: str = "", config: str = CONFIG) -> None:
        supervisor += "".join(f"\n{key} = {value}" for key, value in TIMELESS.items() if key not in supervisor)
        self.name = f"test-{os.getpid()}-{next(_serial)}"
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(config.format(name=self.name, folder=folder, supervisor=supervisor, more=more))
        self.process: subprocess.Popen[str] | None = None
        self.out = self.err = ""
        self.program = ["-m", "pipeline.supervisor"]
        self.streams: dict[str, Any] = {}  # of stdin, stdout, stderr those that are not as usual
        self.closes = ""  # by a shell: "2>&-"
        self.environment: dict[str, str] = {}

    def start(self, *options: str) -> Self:
        """Start the supervisor; does not wait."""
        command = [sys.executable, *self.program, str(self.config), "--log-format", "json"]
        command += ["--log-level", "debug", *options]
        if self.closes:
            command = ["sh", "-c", f'exec "$@" {self.closes}', "sh", *command]
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "NUMBA_DISABLE_JIT": "1", **self.environment},
                start_new_session=True,
                **{"stdout": subprocess.PIPE, "stderr": log, "text": True, **self.streams},
            )
        return self

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def ask(self, command: str, **args: Any) -> dict[str, Any]:
        """One control request."""
        return control.ask(f"{self.folder}/{self.name}.sock", command, args, timeout=PATIENCE_S)

    def status(self) -> dict[str, Any]:
        """`status`, or nothing while nobody answers."""
        try:
            return self.ask("status")
        except (OSError, EOFError):
            return {}

    def running(self) -> Self:
        """Wait until it runs."""

        def there() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.text()
            return self.status().get("state") == "RUNNING"

        until(there, "running")
        return self

    def stage(self, name: str) -> dict[str, Any]:
        """One stage of `status`."""
        return next(s for s in self.status()["stages"] if s["id"] == name)

    def pids(self) -> dict[str, int]:
        """Pids of the stages."""
        return {s["id"]: s["pid"] for s in self.status()["stages"]}

    def forkserver(self) -> int:
        """Pid of the fork server."""
        known = set(self.pids().values())
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
            return next(pid for pid in map(int, children.read().split()) if pid not in known)

    def back(self, name: str, epoch: int) -> dict[str, Any]:
        """Wait until a stage runs in that epoch."""
        return until(  # type: ignore[no-any-return]
            lambda: (s := self.stage(name)) and s["state"] == "RUNNING" and s["epoch"] == epoch and s, f"{name} is back"
        )

    def end(self) -> int:
        """Wait for the supervisor's end; its exit status."""
        assert self.process is not None
        self.out, _ = self.process.communicate(timeout=PATIENCE_S)  # also closes the pipe
        return self.process.returncode

    def text(self) -> str:
        """Everything logged."""
        return (self.folder / "log").read_text()

    def events(self) -> list[dict[str, Any]]:
        """Everything logged, by line."""
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    def connect(self, path: str) -> socket.socket:
        """A peer of one of the endpoints."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        until(lambda: sock.connect_ex(f"{self.folder}/{path}") == 0, f"{path} accepts")
        return sock

    def left(self) -> list[str]:
        """What is left in /dev/shm and the runtime folder."""
        names = [p.name for p in Path("/dev/shm").glob(f"{self.name}.*")]
        return names + [p.name for p in self.folder.iterdir() if p.is_socket()]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.end()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for path in Path("/dev/shm").glob(f"{self.name}.*"):
            path.unlink()
        if kind is not None:
            print(self.text())


def frame(data: bytes) -> bytes:
    """A frame as a chardev carries it."""
    return len(data).to_bytes(4, "big") + data


def read_frames(sock: socket.socket, count: int) -> list[bytes]:
    """The next frames from a peer's socket."""
    data, frames = b"", []
    while len(frames) < count:
        while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
            n = 4 + int.from_bytes(data[:4], "big")
            frames.append(data[4:n])
            data = data[n:]
        if len(frames) < count:
            more = sock.recv(65536)
            assert more, f"the link was lost after {len(frames)} frames"
            data += more
    return frames
