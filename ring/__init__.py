"""Shared-memory single-producer single-consumer rings of frames between processes.

    >>> import ring
    >>> with ring.create("demo", "64KiB") as r:  # doctest: +SKIP
    ...     r.producer().send(b"hello")

Importing this package is cheap: NumPy, Numba and the kernels come in when a ring is opened.
"""

from __future__ import annotations

from typing import Any

from ring.errors import RingError

__all__ = ["RingError", "attach", "create", "unlink"]


def __getattr__(name: str) -> Any:
    if name in ("attach", "create", "unlink", "Ring", "Producer", "Consumer"):
        from ring import channel

        return getattr(channel, name)
    raise AttributeError(f"module 'ring' has no attribute {name!r}")
