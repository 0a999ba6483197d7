"""filter-mirror: every packet goes on, and a copy of it to a chardev; both without MPTCP where that is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, ChardevKey, Kind, Qemu, options_table
from stages.mirror import layout
from stages.schema import BOOLEAN, DAY_MS, IDENT, Mistake, integer, key


@dataclass(frozen=True, kw_only=True)
class Mirror(Filter):
    """``type = "filter-mirror"``; ``stall_timeout`` in milliseconds."""

    outdev: str = key(IDENT, required=True, doc="gets the copies")
    stall_timeout: int = key(
        integer(0, DAY_MS, "ms"),
        5_000,
        doc="ms after which packets no longer wait for an outdev that is full and takes nothing; its copies are dropped"
        " until it does. `0`: they wait for ever",
    )
    strip_mptcp: bool = key(
        BOOLEAN,
        False,
        doc="takes MPTCP (RFC 8684) out of what opens a connection with the guest, in the guest's own packet and in the"
        " copy, whatever the status: both guests then speak plain TCP, which goes on after a failover. Not with"
        ' `queue = "rx"`',
    )


def _mistakes(table: Mirror, path: str, clean: bool) -> Iterable[Mistake]:
    if table.strip_mptcp and table.queue == "rx":
        yield Mistake(f"{path}.strip_mptcp", "true", 'false, or queue = "tx": with "rx" it sees nothing to the guest')


KIND: Final = Kind(
    name="filter-mirror",
    type="filter-mirror",
    table=FILTER,
    variant="filter-mirror",
    config=Mirror,
    shell="stages.mirror.shell:Mirror",
    kernels=("stages.mirror.kernels",),
    inputs=("tx_in", "rx_in"),
    outputs=("tx_out", "rx_out", "outdev"),
    counters=layout.COUNTERS,
    tables=(options_table(layout.FIELDS),),
    balances=(Balance("every packet goes on", ("tx_in_frames", "rx_in_frames"), ("tx_out_frames", "rx_out_frames")),),
    chardevs=(ChardevKey("outdev", writes="outdev"),),
    ways=(*WAYS, ("tx_in", "outdev"), ("rx_in", "outdev")),
    hears=("status",),
    losses=("dropped_no_peer", "dropped_stalled"),
    mistakes=_mistakes,
    qemu=Qemu(("netdev", "queue", "status", "position", "insert", "vnet_hdr_support", "outdev"), side="primary"),
)
