"""A test that leaves something behind fails: a shared-memory segment, a child process, a socket file.

Other test runs may be at work on the same machine, so a segment counts only if its owner (a word of its header) is this
process or one that it started: forks report their pid through a pipe, subprocesses are noted as they start.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

from ring import layout

# No deadline: the first call of a kernel compiles it, and a busy machine is no failure.  The ordinary run draws the
# same examples every time: it judges the change and not our luck.  Campaigns (-m slow, or COLO_RANDOM=1) draw new ones.
_TIMELESS: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("colo", derandomize=True, **_TIMELESS)
settings.register_profile("campaign", derandomize=False, **_TIMELESS)
settings.load_profile("colo")

# A unix socket's path has 107 bytes at most, and a test's folder takes 60 of them.
if len(tempfile.gettempdir()) > 16 and os.access("/tmp", os.W_OK):
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

_RUN = f"COLO_TEST_RUN={os.getpid()}"  # whatever was started by this run has it in its environment, orphans too
os.environ.update([_RUN.split("=")])

_SHM = Path("/dev/shm")
_PATIENCE_S = 60.0
_reader, _writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
_ours = {os.getpid()}


def _report() -> None:
    with contextlib.suppress(OSError):  # a child that closed everything, or more forks than a pipe holds
        os.write(_writer, struct.pack("=i", os.getpid()))


os.register_at_fork(after_in_child=_report)
_start = subprocess.Popen.__init__


def _noted_start(self: Any, *args: Any, **kwargs: Any) -> None:
    _start(self, *args, **kwargs)
    _ours.add(self.pid)


subprocess.Popen.__init__ = _noted_start  # type: ignore[method-assign]


def _our_pids() -> set[int]:
    try:
        while data := os.read(_reader, 65536):
            _ours.update(pid for (pid,) in struct.iter_unpack("=i", data))
    except BlockingIOError:
        pass
    return _ours


def _segments() -> dict[str, int]:
    """Our segments in /dev/shm, with the pid of their owner."""
    found = {}
    for path in _SHM.iterdir():
        try:
            with path.open("rb") as file:
                words = struct.unpack("=8q", file.read(64))
        except (OSError, struct.error):
            continue
        if words[layout.MAGIC] in (layout.RING_MAGIC, layout.STAGE_MAGIC):
            found[path.name] = words[layout.OWNER_PID]
    return found


def _children() -> set[psutil.Process]:
    return {
        child
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and "resource_tracker" not in " ".join(_command(child))
    }


def _command(process: psutil.Process) -> list[str]:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ["resource_tracker"]  # it has ended; only its parent has not asked yet
        return list(process.cmdline())
    except psutil.Error:
        return ["resource_tracker"]


def _orphans() -> dict[psutil.Process, str]:
    """Processes that this run started, children or not any more, and the tests that did."""
    found = {}
    for process in psutil.process_iter():
        try:
            words = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended, or is another user's
        if (
            _RUN in words
            and process.pid != os.getpid()
            and "resource_tracker" not in (line := " ".join(_command(process)))
        ):
            test = next((w.partition("=")[2] for w in words if w.startswith("PYTEST_CURRENT_TEST=")), "no test")
            found[process] = f"process {process.pid} of {test}: {line}"
    return found


def _sockets(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is read: its ``@settings`` are made of the profile."""
    campaign = "slow" in config.option.markexpr and "not slow" not in config.option.markexpr
    if campaign or os.environ.get("COLO_RANDOM"):
        settings.load_profile("campaign")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a segment, a child process or a socket file, and take them away for the next one."""
    segments, children = set(_segments()), _children()
    yield
    limit = time.monotonic() + _PATIENCE_S  # what was told to end may be on its way out
    while (left := _children() - children) and time.monotonic() < limit:
        time.sleep(0.01)
    problems = [f"child process {c.pid}: {' '.join(_command(c))}" for c in left]
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    ours = _our_pids()
    for name, owner in _segments().items():
        if name not in segments and owner in ours:
            problems.append(f"segment /dev/shm/{name} of pid {owner}")
            (_SHM / name).unlink(missing_ok=True)
    if folder := (getattr(request.node, "funcargs", None) or {}).get("tmp_path"):
        problems += [f"socket {path}" for path in _sockets(folder)]
    if problems:
        pytest.fail("the test left behind:\n  " + "\n  ".join(problems))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """No process may outlive the run.

    Under CI a test may be left out for one reason only: it belongs to another of the three runs (compiled, with JIT
    off, compiled plainly).
    """
    limit = time.monotonic() + _PATIENCE_S
    while (left := _orphans()) and time.monotonic() < limit:
        time.sleep(0.05)
    if left:
        terminalreporter.section("left behind", red=True)
        for process, line in left.items():
            terminalreporter.line(line)
            with contextlib.suppress(psutil.Error):
                process.kill()
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get("CI") != "true":
        return
    left_out = []
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "JIT" not in reason and "compiled" not in reason:
            left_out.append(f"{report.nodeid}: {reason}")
    if left_out:
        terminalreporter.section("left out, which CI does not allow", red=True)
        for line in left_out:
            terminalreporter.line(line)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
