"""filter-mirror: every packet goes on, and a copy of it to a chardev."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, ChardevKey, Kind, Qemu, options_table
from stages.mirror import layout
from stages.schema import DAY_MS, IDENT, integer, key


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
    qemu=Qemu(("netdev", "queue", "status", "position", "insert", "vnet_hdr_support", "outdev"), side="primary"),
)
