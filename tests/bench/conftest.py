"""Compiled code is on for every benchmark, and a run without pytest-benchmark says so at once."""

from __future__ import annotations

import pytest

from ring import hot


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to measure plain Python."""
    if not hot.JIT:
        raise pytest.UsageError("NUMBA_DISABLE_JIT=1 is set: benchmarks measure compiled code")
