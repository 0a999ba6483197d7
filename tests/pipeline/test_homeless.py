"""Starts of users whose home is of no use: compiled code goes to the runtime folder; what did not run says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.running import ROOT, Running, until

PLACES = ("COLO_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")


def started(it: Running, **environment: str) -> subprocess.Popen[str]:
    """The supervisor, compiling as it would for a user."""
    env = {name: value for name, value in os.environ.items() if name not in (*PLACES, "NUMBA_DISABLE_JIT")}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.supervisor", str(it.config), "--log-format", "json"],
        cwd=ROOT, env=env | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def lines(text: str) -> list[dict[str, Any]]:
    """The log."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("where", ["home", "user"])
def test_compiled_code_goes_to_the_runtime_folder(tmp_path: Path, where: str) -> None:
    """HOME=/sys, and a folder that the user names but which is none.  It is said once."""
    (tmp_path / "file").write_text("")
    it = Running(tmp_path)
    more = {"HOME": "/sys"} if where == "home" else {"COLO_CACHE_DIR": str(tmp_path / "file" / "x"), "HOME": "/sys"}
    process = started(it, **more)
    until(lambda: process.poll() is not None or list(tmp_path.glob("compiled/kernels-*")), "the folder")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    said = [line for line in lines(err) if line["event"].startswith("compiled kernels")]
    assert [line["event"] for line in said] == [
        "compiled kernels are kept in the runtime folder: the usual one cannot be written"
    ]
    assert said[0]["cache"] == str(tmp_path / "compiled")
    assert said[0]["usual"] == {"home": "/sys/.cache/colo-proxy", "user": str(tmp_path / "file" / "x")}[where]
    assert process.returncode == 0, err
    assert "nothing ran: no frame was moved" in out.splitlines()
    assert out.splitlines()[-1] == "good: stopped by SIGTERM before every stage was ready"
    assert it.left() == []


def test_a_cache_directory_of_numbas_is_honoured(tmp_path: Path) -> None:
    """It is where our directories go, and nothing is said."""
    it = Running(tmp_path)
    process = started(it, HOME="/sys", NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    until(lambda: process.poll() is not None or list(tmp_path.glob("numba/kernels-*")), "the folder")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "compiled kernels" not in err
    assert not (tmp_path / "compiled").exists()


BLIND = """
from pipeline import launch, preflight
preflight.look = lambda graph: None
raise SystemExit(launch.main())
"""
"""A supervisor that does not look before it starts."""


def test_a_stage_that_never_starts_is_no_run_that_adds_up(tmp_path: Path) -> None:
    """The reason is named, the summary says that nothing ran: a device that somebody took when all was looked at."""
    more = '\n[netdev.hn1]\nnetwork = { backend = "tap", ifname = "lo" }\n'
    it = Running(tmp_path, supervisor="intensity = 1\nbackoff_initial_ms = 10", more=more)
    it.program = ["-c", BLIND]
    it.start()
    assert it.end() == 1
    assert "nothing ran: no frame was moved" in it.out.splitlines()
    assert it.out.splitlines()[-1].startswith("not good: hn1.network was given up: ")
    assert any(line["event"].startswith("nothing ran") and line["reason"] for line in it.events())
