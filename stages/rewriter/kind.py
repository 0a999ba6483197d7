"""filter-rewriter: lets the secondary's TCP take part in connections whose numbers the primary chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ring.fields import Table
from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, Deaf, Headline, Kind, Qemu, options_table, scalars_table
from stages.packets.layout import networks, table
from stages.packets.tables import connections, scratch
from stages.rewriter.layout import conns, counters, options, scalars, tables
from stages.schema import Mistake, integer, key, one_of, show


@dataclass(frozen=True, kw_only=True)
class Rewriter(Filter):
    """``type = "filter-rewriter"``."""

    max_connections: int = key(integer(1, 1 << 20), 16_384, doc="connections that it can know at once")
    tunnels: str = key(
        one_of("inner", "outer"),
        "inner",
        doc="VXLAN, GENEVE, GRE, IP in IP: `inner`: the TCP inside is rewritten; `outer`: none of it",
    )


def _mistakes(made: Rewriter, path: str, clean: bool) -> Iterable[Mistake]:
    if made.queue != "all":
        yield Mistake(f"{path}.queue", show(made.queue), '"all": a rewriter has to see both directions')


def _words(params: Mapping[str, Any]) -> int:
    rows = int(params["max_connections"])
    return tables.TABLE_AT - tables.SCRATCH_AT + table.words(rows, conns.WORDS)


_TABLES: Final = (
    *connections(
        lambda w: tables.TABLE_AT,
        conns.FIELDS,
        conns.WORDS,
        {"state": conns.STATE_NAMES, "fins": conns.FIN_NAMES},
        ("state", "seq_offset", "seen", "ts_offset", "fins", "listed"),
    ),
    scalars_table(scalars.FIELDS),
    Table(
        "spare_rows",
        "ends of the list of connections that may go when a new one needs room",
        tuple(field for field in tables.FIELDS if field.name != "scratch_at"),
        lambda w: 0,
    ),
    options_table(options.FIELDS, names={"tunnels": networks.POLICIES}),
    scratch(lambda w: tables.SCRATCH_AT),
)

KIND: Final = Kind(
    name="filter-rewriter",
    type="filter-rewriter",
    table=FILTER,
    variant="filter-rewriter",
    config=Rewriter,
    shell="stages.rewriter.shell:Rewriter",
    kernels=("stages.rewriter.kernels.burst",),
    burst="rewriter_burst",
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
    words_of=_words,
    sized_by=("max_connections",),
    ways=WAYS,
    tables=_TABLES,
    hears=("status", "checkpoint", "failover"),
    marks_secondary=True,
    # Two counts do not say which came first, and after a failover no checkpoint is of use.
    deaf=(Deaf("checkpoint", "failover"),),
    mistakes=_mistakes,
    headlines=(Headline("checkpoints", ("checkpoints",), once=True),),
    qemu=Qemu(("netdev", "queue", "status", "position", "insert", "vnet_hdr_support"), side="secondary"),
)
