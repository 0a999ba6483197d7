"""What the pipeline must know of a filter-mirror."""

from __future__ import annotations

from typing import Final

from stages.kind import Balance, Kind
from stages.mirror.layout import counters

KIND: Final = Kind(
    name="filter-mirror",
    type="filter-mirror",
    shell="stages.mirror.shell:Mirror",
    kernels=("stages.mirror.kernels",),
    inputs=("tx_in", "rx_in"),
    outputs=("tx_out", "rx_out", "outdev"),
    counters=counters.COUNTERS,
    balances=(Balance("every packet goes on", ("tx_in_frames", "rx_in_frames"), ("tx_out_frames", "rx_out_frames")),),
)
