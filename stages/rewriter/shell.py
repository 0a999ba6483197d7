"""filter-rewriter: lets the secondary's TCP take part in connections whose numbers the primary chose."""

from __future__ import annotations

from stages.base import Stage
from stages.packets.kernels.table import format_table
from stages.packets.layout import networks, table
from stages.rewriter.layout import conns, options, tables


class Rewriter(Stage):
    """Rewrites acknowledgement numbers towards the guest and sequence numbers from it; TCP only."""

    def options(self) -> dict[int, int]:
        """The keys of the config that the kernel reads."""
        return {options.TUNNELS: networks.POLICIES.index(self.params["tunnels"])}

    def on_start(self) -> None:
        """Lay out the connection table of a fresh segment."""
        # The capacity is written last: a process killed over the formatting leaves 0, and the next one does it again.
        if self.w[tables.TABLE_AT + table.CAPACITY] == 0:
            rows = int(self.params["max_connections"])
            format_table(self.w, tables.TABLE_AT, rows, table.buckets(rows), conns.WORDS)
