"""filter-rewriter: lets the secondary's TCP take part in connections whose numbers the primary chose."""

from __future__ import annotations

from ring import layout
from stages.base import Stage
from stages.packets.kernels.table import format_table
from stages.packets.layout import networks, table
from stages.rewriter.layout import addresses, conns, options, scalars, tables


class Rewriter(Stage):
    """Rewrites acknowledgement numbers towards the guest and sequence numbers from it; TCP only.

    Besides it answers the guest's questions for its neighbours before a failover, and announces the guest after it.
    """

    def options(self) -> dict[int, int]:
        """The keys of the config that the kernel reads, and where the second table lies."""
        return {
            options.TUNNELS: networks.POLICIES.index(self.params["tunnels"]),
            options.ADDRESSES: tables.TABLE_AT + table.words(int(self.params["max_connections"]), conns.WORDS),
            options.AGE_NS: int(self.params["address_age"]) * 1_000_000_000,
            options.ROUNDS: int(self.params["announce_rounds"]),
            options.INITIAL_NS: self._ns("announce_initial"),
            options.STEP_NS: self._ns("announce_step"),
            options.MOST_NS: self._ns("announce_max"),
        }

    def _ns(self, key: str) -> int:
        return int(self.params[key]) * 1_000_000

    def on_start(self) -> None:
        """Lay out the tables of a fresh segment."""
        self._format(tables.TABLE_AT, int(self.params["max_connections"]), conns.WORDS)
        self._format(int(self.w[options.ADDRESSES]), int(self.params["max_addresses"]), addresses.WORDS)
        self._said = self.scalar(scalars.SAID)

    def _format(self, at: int, rows: int, row_words: int) -> None:
        # The capacity is written last: a process killed over the formatting leaves 0, and the next one does it again.
        if self.w[at + table.CAPACITY] == 0:
            format_table(self.w, at, rows, table.buckets(rows), row_words)

    def do_work(self, now: int) -> int:
        """One burst; then a line where the guest was announced."""
        result = super().do_work(now)
        if result and self.w[layout.CMD_FAILOVER] and self.scalar(scalars.SAID) != self._said:
            self._said = self.scalar(scalars.SAID)
            self._log_announcement()
        return result

    def next_deadline(self, now: int) -> int:
        """When the next round of an announcement is due (monotonic ns), 0: never, or it waits for room."""
        at = self.scalar(scalars.ROUND_AT) if self.scalar(scalars.ROUNDS_LEFT) else 0
        return at if at > now else 0

    def _log_announcement(self) -> None:
        macs, left = self.scalar(scalars.MACS), self.scalar(scalars.ROUNDS_LEFT)
        if macs:
            self.log.info("guest announced to the network", macs=macs, addresses=self.scalar(scalars.IPS), again=left)
        else:
            self.log.warning("nothing to announce to the network: the guest has not sent a frame yet")
