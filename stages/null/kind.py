"""netdev-null: one side of a netdev that swallows and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stages.kind import NETDEV, Kind
from stages.null import layout


@dataclass(frozen=True, kw_only=True)
class Null:
    """``backend = "null"``: swallows and counts."""


KIND: Final = Kind(
    name="netdev-null",
    type="netdev",
    table=NETDEV,
    variant="null",
    default=True,
    config=Null,
    kernels=("stages.null.kernels",),
    burst="null_burst",
    inputs=("send",),
    outputs=("receive",),
    counters=layout.COUNTERS,
    gives=lambda table: False,
    vnet=lambda table: None,
    address=lambda params: "nothing",
)
