"""The fixture that fails a test which leaves something behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.ring.names import fresh

ROOT = Path(__file__).resolve().parent.parent

TESTS = """
import os, socket, subprocess
import tests.conftest
import ring
from ring import ledger

tests.conftest._PATIENCE_S = 0.5  # the sleep below does not end by itself


def test_segment():
    ledger.StageSegment.create({name!r} + "-1", 2048)


def test_segment_of_a_child():
    pid = os.fork()
    if not pid:
        keep = ring.create({name!r} + "-2", 4096)
        os._exit(0 if keep else 1)
    os.waitpid(pid, 0)


def test_child_process():
    subprocess.Popen(["sleep", "600"])


def test_orphan():
    subprocess.run(["sh", "-c", "exec >&- 2>&-; sleep 601 &"], check=True)


def test_socket(tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "s.sock"))


def test_nothing(tmp_path):
    ring.create({name!r} + "-3", 4096).close()
"""


def test_what_a_test_leaves_behind_fails_it(tmp_path: Path) -> None:
    """A segment (of the test or of its child), a child process, a socket file: each is named, and taken away."""
    name = fresh("leak")
    file = tmp_path / "test_leak.py"
    file.write_text(TESTS.format(name=name))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-o",
            "addopts=",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "--color=no",
            str(file),
        ],
        cwd=ROOT,
        env={
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS")  # under CI pytest says everything twice
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    blamed = re.findall(r"^ERROR \S+::test_(\w+)", done.stdout, re.MULTILINE)
    assert blamed == ["segment", "segment_of_a_child", "child_process", "socket"], done.stdout
    assert done.stdout.count("Failed: the test left behind:") == 4
    for line in (
        rf"segment /dev/shm/{name}-1 of pid",
        rf"segment /dev/shm/{name}-2 of pid",
        r"child process \d+: sleep 600",
    ):
        assert re.search(line, done.stdout)
    assert "s.sock" in done.stdout
    assert re.findall(r"^process \d+ of \S+::(test_\w+) .*: sleep 601$", done.stdout, re.MULTILINE) == ["test_orphan"]
    assert not list(Path("/dev/shm").glob(f"{name}*"))
