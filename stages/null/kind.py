"""What the pipeline must know of a netdev-null."""

from __future__ import annotations

from typing import Final

from stages.kind import Kind
from stages.null.layout import counters

KIND: Final = Kind(
    name="netdev-null",
    type="netdev",
    shell="stages.null.shell:Null",
    kernels=("stages.null.kernels",),
    inputs=("send",),
    outputs=("receive",),
    counters=counters.COUNTERS,
)
