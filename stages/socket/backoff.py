"""How long to wait before the next try."""

from __future__ import annotations

from typing import Final

INITIAL_NS: Final = 50_000_000


class Backoff:
    """Delays in nanoseconds that double from 50 ms up to ``cap_s`` seconds.

    There is no jitter: a link has one client, and a test can say what comes.
    """

    def __init__(self, cap_s: float, initial_ns: int = INITIAL_NS) -> None:
        self._initial = initial_ns
        self._cap = max(int(cap_s * 1e9), initial_ns)
        self._next = initial_ns

    def delay(self) -> int:
        """The next delay."""
        now = self._next
        self._next = min(now * 2, self._cap)
        return now

    def reset(self) -> None:
        """Something worked: start from the beginning."""
        self._next = self._initial
