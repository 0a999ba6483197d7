"""filter-mirror: a copy of every packet of its direction goes to outdev."""

from __future__ import annotations

from stages.base import Stage
from stages.mirror import layout


class Mirror(Stage):
    """Passes every packet on, and sends a copy to outdev while a peer is connected there."""

    _stalled = False

    def options(self) -> dict[int, int]:
        """How long a full outdev is waited for, and whether MPTCP is taken out."""
        return {
            layout.STALL_NS: int(self.params["stall_timeout"]) * 1_000_000,
            layout.STRIP_MPTCP: int(self.params["strip_mptcp"]),
        }

    def do_work(self, now: int) -> int:
        """One burst of each direction; a line when outdev begins or ceases to take nothing."""
        result = int(self.kernel.mirror_burst(self.u8, self.w, now))
        if result and (int(self.w[layout.STALLED]) == 1) != self._stalled:
            self._stalled = not self._stalled
            if self._stalled:
                waited = int(self.w[layout.FULL_NS]) // 1_000_000
                self.log.warning("outdev takes nothing: copies are dropped until it does", waited_ms=waited)
            else:
                self.log.info("outdev takes copies again", dropped=self.counter(layout.DROPPED_STALLED))
        return result
