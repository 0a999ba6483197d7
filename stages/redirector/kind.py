"""What the pipeline must know of a filter-redirector."""

from __future__ import annotations

from typing import Final

from stages.kind import Balance, Kind
from stages.redirector.layout import counters

KIND: Final = Kind(
    name="filter-redirector",
    type="filter-redirector",
    shell="stages.redirector.shell:Redirector",
    kernels=("stages.redirector.kernels",),
    inputs=("tx_in", "rx_in", "indev"),
    outputs=("tx_out", "rx_out", "outdev"),
    counters=counters.COUNTERS,
    balances=(
        Balance("every packet goes out or on", ("tx_in_frames", "rx_in_frames"), ("outdev_frames", "passed_on")),
        Balance("every frame from indev enters", ("indev_frames", "injected_twice"), ("injected_tx", "injected_rx")),
        Balance(
            "the chain gets no other",
            ("tx_out_frames", "rx_out_frames"),
            ("passed_on", "injected_tx", "injected_rx"),
        ),
    ),
)
