"""What the pipeline must know of a filter-rewriter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stages.kind import Balance, Kind
from stages.packets.layout import table
from stages.rewriter.layout import conns, counters, tables


def capacity(params: Mapping[str, Any]) -> int:
    """Rows of the table."""
    return int(params.get("max_connections", tables.MAX_CONNECTIONS))


def _table_words(params: Mapping[str, Any]) -> int:
    return tables.TABLE_AT - tables.SCRATCH_AT + table.words(capacity(params), conns.WORDS)


KIND: Final = Kind(
    name="filter-rewriter",
    type="filter-rewriter",
    shell="stages.rewriter.shell:Rewriter",
    kernels=("stages.rewriter.kernels.burst",),
    inputs=("tx_in", "rx_in"),
    outputs=("tx_out", "rx_out"),
    counters=counters.COUNTERS,
    balances=(
        Balance("every packet goes on, inbound", ("tx_in_frames",), ("tx_out_frames",)),
        Balance("every packet goes on, outbound", ("rx_in_frames",), ("rx_out_frames",)),
        Balance(
            "every packet was rewritten or passed for a reason",
            ("tx_in_frames", "rx_in_frames"),
            (
                "rewritten_in",
                "rewritten_out",
                "rewritten_errors",
                *(c.name for c in counters.COUNTERS if c.name.startswith("passed_")),
            ),
        ),
        Balance(
            "every connection is open or ended for a reason",
            ("connections_opened",),
            (
                "connections",
                "connections_closed",
                "connections_reset",
                "connections_replaced",
                "connections_evicted",
                "half_open_evicted",
            ),
        ),
    ),
    undo_entries=tables.UNDO_ENTRIES,
    table_words=_table_words,
)
