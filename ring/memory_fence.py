"""A full memory fence for plain Python, where Numba is not wanted (the supervisor) or switched off.

Python has none, but a lock has: releasing it is a release, taking it again an acquire, both of them atomic
read-modify-writes, and a release followed by an acquire lets nothing pass in either direction, neither on x86 (both are
``lock``-prefixed) nor on ARMv8 (a store-release and a later load-acquire stay in order).  It costs 0.1 µs.
"""

from __future__ import annotations

from threading import Lock


def fence() -> None:
    """Every load and store before it comes before every load and store after it, as other processes see them."""
    lock = Lock()
    lock.acquire()
    lock.release()
    lock.acquire()
