"""Containers: a supervisor that is process 1, and pipelines whose processes cannot see each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import processes
from tests.namespaces import root
from tests.pipeline.running import PATIENCE_S, ROOT, Running, gone, until

UNSHARED = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""A pid namespace of its own, in which the program is process 1; /dev/shm and all files are shared."""


def in_another_namespace(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the project in a pid namespace of its own."""
    return subprocess.run(
        [*UNSHARED, sys.executable, "-m", *arguments],
        cwd=ROOT, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Running]:
    """A pipeline that runs as process 1 of a pid namespace, as a container's only program does."""
    it = Running(tmp_path)
    start = [*UNSHARED, sys.executable, "-m", "pipeline.supervisor"]
    it.program = ["-c", f"import os, sys; os.execvp('unshare', [*{start!r}, *sys.argv[1:]])"]
    with it:
        yield it.running()
        if not gone(it.pid):
            os.kill(supervisor(it), signal.SIGTERM)  # unshare(1) passes no signals on
            it.end()


def supervisor(it: Running) -> int:
    """Its pid as it is outside."""
    (pid,) = processes.children(it.pid)
    return pid


def entered(it: Running, script: str) -> str:
    """Run a shell in the pipeline's pid namespace, as `docker exec` does; what it says."""
    command = ["nsenter", "-t", str(supervisor(it)), "-p", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout


@root
def test_a_pipeline_of_another_pid_namespace_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Who shares /dev/shm but no pids is told that the name is in use; the first one notices nothing."""
    with Running(tmp_path) as it:
        it.running()
        before = it.pids()
        done = in_another_namespace("pipeline.supervisor", str(it.config))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"is running as pid {it.pid} of another pid namespace" in done.stderr
        asked = in_another_namespace("pipeline.control", it.name, "status")
        assert f"{it.name}: RUNNING" in asked.stdout
        looked = in_another_namespace("tools.inspect", it.name)
        assert f"pid {it.pid}" in looked.stdout and "dead" not in looked.stdout
        assert it.pids() == before
        os.kill(it.pid, signal.SIGTERM)
        assert it.end() == 0
        assert it.left() == []


@root
def test_the_next_one_takes_over_what_died_in_another_pid_namespace(first: Running) -> None:
    """The lock goes with the last process, so a container that was killed leaves nothing in the way."""
    os.kill(supervisor(first), signal.SIGKILL)
    first.end()
    first.program = ["-m", "pipeline.supervisor"]
    first.start()
    first.running()
    assert "taking over from a dead supervisor" in first.text()
    os.kill(first.pid, signal.SIGTERM)
    assert first.end() == 0
    assert first.left() == []


@root
def test_process_1_waits_for_orphans_and_harms_nobody_elses(first: Running) -> None:
    """What `docker exec` leaves behind becomes its child: the dead are reaped, the living live on."""
    entered(first, "for i in 1 2 3; do (true &); done; (sleep 300 >/dev/null 2>&1 &)")
    known = {supervisor(first)}

    def strangers() -> dict[int, list[bytes]]:
        return {pid: processes.arguments(pid) for pid in processes.children(supervisor(first)) if pid not in known}

    (sleeper,) = [pid for pid, words in strangers().items() if words[:1] == [b"sleep"]]
    until(lambda: all(not gone(pid) for pid in strangers()), "no zombies")
    (server,) = [pid for pid in strangers() if b"colo-forkserver" in Path(f"/proc/{pid}/comm").read_bytes()]
    os.kill(server, signal.SIGKILL)
    until(lambda: "the fork server died" in first.text(), "its death is told")
    os.kill(next(pid for pid in strangers() if Path(f"/proc/{pid}/comm").read_text() == "m0\n"), signal.SIGKILL)
    first.back("m0", 2)
    assert not gone(sleeper)
    os.kill(sleeper, signal.SIGKILL)
    until(lambda: sleeper not in strangers(), "it is reaped")
