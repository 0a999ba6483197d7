"""A fresh interpreter for what an import does: it must not have this process's modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fresh_python(code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in the project's folder; ``environment`` changes this process's, None takes a name out."""
    changed = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=600,  # a kernel that is compiled on a busy machine
        check=False,
    )
