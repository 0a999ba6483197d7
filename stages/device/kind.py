"""What the pipeline must know of a TAP device or an existing interface as one side of a netdev."""

from __future__ import annotations

from typing import Final

from stages.device.layout import counters
from stages.kind import Balance, Kind

_BALANCE: Final = Balance("every frame is sent or refused", ("send_frames",), ("sent", "dropped_refused"))
_KERNELS: Final = ("stages.device.kernels.device", "stages.capture.kernels.pcap_blocks")

TAP: Final = Kind(
    name="netdev-tap",
    type="netdev",
    shell="stages.device.tap:Tap",
    kernels=_KERNELS,
    inputs=("send",),
    outputs=("receive",),
    counters=counters.TAP_COUNTERS,
    connects=True,
    balances=(_BALANCE,),
)

PACKET: Final = Kind(
    name="netdev-packet",
    type="netdev",
    shell="stages.device.packet_socket:Interface",
    kernels=_KERNELS,
    inputs=("send",),
    outputs=("receive",),
    counters=counters.COUNTERS,
    connects=True,
    balances=(_BALANCE,),
)

KINDS: Final = {kind.name: kind for kind in (TAP, PACKET)}
