"""filter-redirector: packets of its direction leave the chain to outdev; frames from indev enter it."""

from __future__ import annotations

from stages.base import Stage
from stages.redirector.kind import KIND


class Redirector(Stage):
    """Sends the chain's packets to outdev while a peer is connected there, and puts indev's frames into the chain."""

    KIND = KIND

    def do_work(self, now: int) -> int:
        """One burst of each input."""
        return int(self.kernel.redirector_burst(self.u8, self.w, now))
