"""The README keeps what it says."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from ring import errors
from tests.ring.names import fresh

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "ring" / "README.md").read_text()


def test_the_example_does_what_its_comment_says() -> None:
    """The ten lines run as they stand, print what the comment beside the print says, and leave nothing."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "    # "))]) <= 10
    said = re.search(r"print\(.*?#\s*(.*)", code)
    assert said is not None
    name = fresh("readme")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace('"demo"', repr(name))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == said[1], done.stderr
    assert done.stderr == ""
    assert not os.path.exists(f"/dev/shm/{name}")


def test_the_error_table_is_complete() -> None:
    """Every typed error is in the table, and the table names no other."""
    ours = {n for n, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.RingError)}
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == ours - {"RingError"}
