"""Names of segments that no other test run uses."""

from __future__ import annotations

import itertools
import os

_serial = itertools.count()


def fresh(word: str = "t") -> str:
    """A name that is not taken."""
    return f"test-{word}-{os.getpid()}-{next(_serial)}"
