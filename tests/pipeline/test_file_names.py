"""A pipeline in a folder whose name is no text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.control import ask
from stages.capture import reader as captures
from tests.pipeline.running import PATIENCE_S, ROOT, Running, frame, read_frames, until

CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "run"
ring_size = "256KiB"
[supervisor]
{supervisor}
[netdev.hn0]
network = {{ backend = "stream", path = "net", server = true }}
guest = {{ backend = "stream", path = "guest", server = true }}
[filter.f0]
type = "filter-dump"
netdev = "hn0"
file = "all.pcapng"
{more}
"""


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 (a disk of another system): every file of a pipeline lies there, and `status` tells."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with Running(folder, config=CONFIG) as it:
        control = folder / "run" / f"{it.name}.sock"

        def status() -> dict[str, Any]:
            try:
                return ask(str(control), "status")
            except (OSError, EOFError):
                return {}

        until(lambda: status().get("state") == "RUNNING", "running")
        assert f"listens at {folder}/guest" in " ".join(status()["reasons"])
        guest = it.connect("guest")
        sock = it.connect("net")
        sock.sendall(frame(b"\xff" * 60))
        assert read_frames(guest, 1) == [b"\xff" * 60]
        shown = subprocess.run(
            [sys.executable, "-m", "pipeline.control", it.name, "status"],
            cwd=ROOT, capture_output=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert b"RUNNING" in shown.stdout
        os.kill(it.pid, signal.SIGTERM)
        assert it.end() == 0
        for one in (sock, guest):
            one.close()
    assert [one.data for one in captures.read(str(folder / "all.pcapng"))] == [b"\xff" * 60]
