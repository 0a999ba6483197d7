"""filter-mirror: ports, counters, options."""

from __future__ import annotations

from typing import Final

from stages.layout.kind import OWN_COUNTERS, Balance, Counter, Kind

TX_IN, RX_IN = range(2)
TX_OUT, RX_OUT, OUTDEV = range(3)

NO_PEER: Final = OWN_COUNTERS
COUNTERS: Final = (Counter("dropped_no_peer", "copies not made because outdev had no peer connected"),)

KIND: Final = Kind(
    name="filter-mirror",
    type="filter-mirror",
    shell="stages.mirror:Mirror",
    kernels=("stages.kernels.mirror",),
    inputs=("tx_in", "rx_in"),
    outputs=("tx_out", "rx_out", "outdev"),
    counters=COUNTERS,
    balances=(Balance("every packet goes on", ("tx_in_frames", "rx_in_frames"), ("tx_out_frames", "rx_out_frames")),),
)
