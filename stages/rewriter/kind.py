"""filter-rewriter: lets the secondary's TCP take part in connections whose numbers the primary chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ring.fields import Table
from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, Deaf, Headline, Kind, Qemu, Waits, options_table, scalars_table
from stages.packets.layout import networks, table
from stages.packets.tables import connections, keyed, scratch
from stages.rewriter.layout import addresses, conns, counters, options, scalars, tables
from stages.rewriter.shown import address, mac, tpids
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
    max_addresses: int = key(
        integer(16, 4096), 1024, doc="addresses of the guest and of its neighbours that it can know at once"
    )
    address_age: int = key(
        integer(0, 86_400, "s"),
        14_400,
        doc="s after which a neighbour's address that was not heard of again is no answer to the guest any more; 0: "
        "nothing is answered",
    )
    announce_rounds: int = key(
        integer(0, 1000),
        10,
        doc="how often the guest is announced after a failover; 0: only with `control NAME announce`, once",
    )
    announce_initial: int = key(integer(0, 100_000, "ms"), 50, doc="ms from the first time to the second")
    announce_step: int = key(integer(0, 10_000, "ms"), 100, doc="ms by which each pause is longer than the last")
    announce_max: int = key(integer(0, 100_000, "ms"), 550, doc="ms of the longest pause")


def _mistakes(made: Rewriter, path: str, clean: bool) -> Iterable[Mistake]:
    if made.queue != "all":
        yield Mistake(f"{path}.queue", show(made.queue), '"all": a rewriter has to see both directions')


def _words(params: Mapping[str, Any]) -> int:
    found = table.words(int(params["max_connections"]), conns.WORDS)
    found += table.words(int(params["max_addresses"]), addresses.WORDS)
    return tables.TABLE_AT - tables.SCRATCH_AT + found


def _differs(_table: Rewriter) -> Iterable[str]:
    yield "until the failover it answers its guest's ARP requests and neighbour solicitations: QEMU does not"
    yield "it announces the guest after the failover by itself (announce_rounds): in QEMU that is announce-self"


_TABLES: Final = (
    *connections(
        lambda w: tables.TABLE_AT,
        conns.FIELDS,
        conns.WORDS,
        {"state": conns.STATE_NAMES, "fins": conns.FIN_NAMES},
        ("state", "seq_offset", "seen", "ts_offset", "fins", "listed"),
    ),
    *keyed(
        ("addresses", "address_table", "address_buckets"),
        "who has which address: the guest, and its neighbours",
        lambda w: int(w[options.ADDRESSES]),
        addresses.FIELDS,
        addresses.WORDS,
        {"side": addresses.SIDE_NAMES},
        ("key", "side", "mac", "router", "seen"),
        shown={"key": address, "mac": mac, "tpids": tpids},
    ),
    scalars_table(scalars.FIELDS),
    Table(
        "spare_rows",
        "ends of the list of connections that may go when a new one needs room",
        tuple(field for field in tables.FIELDS if field.name not in ("scratch_at", "address_at")),
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
        Balance("every packet goes on, inbound", ("tx_in_frames", "answered_arp", "answered_nd"), ("tx_out_frames",)),
        Balance("every packet goes on, outbound", ("rx_in_frames", "announced"), ("rx_out_frames",)),
        Balance("every address is known or was given up", ("addresses_learnt",), ("addresses", "addresses_evicted")),
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
    sized_by=("max_connections", "max_addresses"),
    ways=WAYS,
    tables=_TABLES,
    hears=("status", "checkpoint", "failover", "announce"),
    waits=(Waits("announce", "failover", "nothing of a secondary's guest goes to the network before it"),),
    marks_secondary=True,
    # Two counts do not say which came first, and after a failover no checkpoint is of use.
    deaf=(Deaf("checkpoint", "failover"),),
    mistakes=_mistakes,
    headlines=(Headline("checkpoints", ("checkpoints",), once=True),),
    qemu=Qemu(
        ("netdev", "queue", "status", "position", "insert", "vnet_hdr_support"), side="secondary", differs=_differs
    ),
)
