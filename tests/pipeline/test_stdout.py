"""A program whose output cannot be written says so in one line; one whose reader has seen enough says nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRAPH = [sys.executable, "-m", "pipeline.graph", "config.toml"]


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(GRAPH, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.stderr == "pipeline.graph: the output cannot be written (No space left on device)\n"
    assert ran.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_gone_is_no_error(unbuffered: str) -> None:
    """Noticed by the print or by the last flush."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    try:
        ran = subprocess.run(
            GRAPH, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, "")
