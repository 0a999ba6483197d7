"""filter-mirror: a copy of every packet of its direction goes to outdev."""

from __future__ import annotations

from stages.base import Stage
from stages.layout import mirror


class Mirror(Stage):
    """Passes every packet on unchanged, and sends a copy to outdev while a peer is connected there."""

    KIND = mirror.KIND

    def do_work(self, now: int) -> int:
        """One burst of each direction."""
        return int(self.kernel.mirror_burst(self.u8, self.w, now))
