"""netdev-tap: ports, counters, and the words that its kernel reads."""

from __future__ import annotations

from typing import Final

from ring.layout import MAX_FRAME, P_OPTIONS
from stages.layout.kind import OWN_COUNTERS, Balance, Counter, Kind

SEND: Final = 0
RECEIVE: Final = 0

SENT, REFUSED = range(OWN_COUNTERS, OWN_COUNTERS + 2)
COUNTERS: Final = (
    Counter("sent", "frames that the TAP device took"),
    Counter("dropped_refused", "frames that the TAP device refused: its link is down, or it is no Ethernet frame"),
)

P_FD: Final = P_OPTIONS
P_HEADER: Final = P_OPTIONS + 1  # bytes of virtio-net header that the device speaks: 0, 10, 12
P_MEMORY: Final = P_OPTIONS + 2  # first word of the private memory

X_ROW: Final = 0
X_WORK: Final = 1
X_WANTS_OUT: Final = 2  # 1: the device's queue is full, wait for EPOLLOUT
X_ERROR: Final = 3  # errno with which the device ended, 0: it lives
X_FRAME: Final = 8  # room for one frame with another header
BYTES: Final = X_FRAME * 8 + MAX_FRAME + 16

BURST: Final = 128

KIND: Final = Kind(
    name="netdev-tap",
    type="netdev",
    shell="stages.tap:Tap",
    kernels=("stages.kernels.tap", "stages.kernels.record"),
    inputs=("send",),
    outputs=("receive",),
    counters=COUNTERS,
    connects=True,
    balances=(Balance("every frame is sent or refused", ("send_frames",), ("sent", "dropped_refused")),),
)
