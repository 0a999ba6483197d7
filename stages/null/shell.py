"""netdev null: swallows what it is sent, and never gives anything."""

from __future__ import annotations

from stages.base import Stage
from stages.null.kind import KIND


class Null(Stage):
    """A side of a netdev with nobody behind it."""

    KIND = KIND

    def do_work(self, now: int) -> int:
        """Swallow one burst."""
        return int(self.kernel.null_burst(self.u8, self.w, now))
