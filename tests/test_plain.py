"""Plain compilation does what linked compilation does.

The same captures go through the default pipeline compiled in both ways, and every byte that comes out is compared.  The
Makefile runs tests/ring and some of tests/crash compiled plainly as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import control
from ring import hot
from stages import catalog
from stages.capture import reader as captures
from tests.interpreter import fresh_python
from tests.pipeline.running import TIMELESS

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600.0  # a cold cache on a busy machine compiles for minutes
PLAIN = "plain compilation, as asked: a slower first start, slower kernels"

pytestmark = pytest.mark.skipif(not hot.ASKED or not hot.JIT, reason="COLO_PLAIN_COMPILE=1: runs compiled plainly")


def config(folder: Path) -> Path:
    """The default run's, under a name of its own, with a capture of what comes out at each end."""
    text = (ROOT / "config.toml").read_text().replace('"samples/', f'"{ROOT}/samples/')
    text = text.replace('name = "sample"', f'name = "plain-{os.getpid()}-{folder.name}"\nruntime_dir = "{folder}"')
    text, ends = re.subn(r'read = "[^"]*/(\w+)\.pcapng"', rf'\g<0>, write = "{folder}/\1.pcap"', text)
    assert ends == 3
    text += "[supervisor]\n" + "".join(f"{key} = {value}\n" for key, value in TIMELESS.items())
    path = folder / "config.toml"
    path.write_text(text)
    return path


def run(folder: Path, plain: str, *, kill: bool = False) -> tuple[dict[str, Counter[bytes]], list[dict[str, Any]]]:
    """The frames that came out at each end, and the log; ``kill``: the fork server and then a stage, once."""
    folder.mkdir()
    command = [sys.executable, "-m", "pipeline.supervisor", str(config(folder)), "--log-format", "json"]
    environment = {**os.environ, "COLO_PLAIN_COMPILE": plain}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True
        )
        with process:
            try:
                if kill:
                    kill_the_fork_server(process, folder)
                summary, _ = process.communicate(timeout=PATIENCE_S)
            finally:
                if process.poll() is None:
                    process.terminate()
    events = [json.loads(line) for line in (folder / "log").read_text().splitlines() if line.startswith("{")]
    assert process.returncode == 0, events
    assert "everything adds up" in summary
    frames = {path.stem: Counter(p.data for p in captures.read(path)) for path in folder.glob("*.pcap")}
    return frames, events


def kill_the_fork_server(process: subprocess.Popen[str], folder: Path) -> None:
    """Once everything runs; and a stage, which only the next fork server can replace."""
    (name,) = re.findall(r'name = "(plain-[^"]+)"', (folder / "config.toml").read_text())

    status: dict[str, Any] = {}
    limit = time.monotonic() + PATIENCE_S
    while status.get("state") != "RUNNING":
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
        with contextlib.suppress(OSError, EOFError):
            status = control.ask(str(folder / f"{name}.sock"), "status", timeout=PATIENCE_S)
    stages = {stage["id"]: stage["pid"] for stage in status["stages"]}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (server,) = {int(pid) for pid in children} - set(stages.values())
    os.kill(server, signal.SIGKILL)
    os.kill(stages["comp0"], signal.SIGKILL)


def test_the_same_frames_come_out_and_one_line_says_how_kernels_are_compiled(tmp_path: Path) -> None:
    """Linked, then plainly with the fork server killed: the same bytes at each end, and one line, not one a process."""
    linked, quiet = run(tmp_path / "linked", "0")
    plain, said = run(tmp_path / "plain", "1", kill=True)
    assert plain == linked
    assert set(plain) == {"client", "primary", "secondary"}
    assert all(frames.total() > 100 for frames in plain.values())
    assert len([line for line in said if "fork server died" in line["event"]]) == 1
    assert [line["reason"] for line in said if line["event"] == PLAIN] == ["COLO_PLAIN_COMPILE=1"]
    assert not [line for line in quiet if line["event"] == PLAIN]


def test_every_kernel_compiles_plainly() -> None:
    """Those of every kind that the catalog has, and no kernel of our packages is left out."""
    modules = sorted({module for name in catalog.MODULES for module in catalog.kind(name).kernels})
    code = (
        "from importlib import import_module; from ring import hot; from ring.kernels import frames, ledger\n"
        f"for module in {modules}: import_module(module)\n"
        "print(hot.warm(), hot.PLAIN)"
    )
    done = fresh_python(code)
    written = sum(
        len(re.findall(r"^@kernel$", path.read_text(), re.M))
        for package in ("ring", "stages")
        for path in (ROOT / package).rglob("*.py")
    )
    assert done.stdout.split() == [str(written), "COLO_PLAIN_COMPILE=1"], done.stderr
