"""filter-mirror: ports, counters, options.

The words behind O_STALL_NS are the kernel's notes: not committed, and a new incarnation begins with zeros.
"""

from __future__ import annotations

from typing import Final

from ring import layout
from stages.kind import OWN_COUNTERS, Counter

TX_IN, RX_IN = range(2)
TX_OUT, RX_OUT, OUTDEV = range(3)

NO_PEER, STALLED = range(OWN_COUNTERS, OWN_COUNTERS + 2)
COUNTERS: Final = (
    Counter("dropped_no_peer", "copies not made because outdev had no peer connected"),
    Counter("dropped_stalled", "copies not made because outdev was full and took nothing for stall_timeout"),
)

O_STALL_NS: Final = layout.OPTIONS  # stall_timeout in ns, 0: wait for ever
O_TAKEN: Final = layout.OPTIONS + 1  # outdev's head at the last look
O_FULL_NS: Final = layout.OPTIONS + 2  # for how long outdev has been full and has taken nothing
O_LOOKED: Final = layout.OPTIONS + 3  # monotonic ns of the last look at a full outdev
O_LINK: Final = layout.OPTIONS + 4  # outdev's link word, of the connection that this is about
O_STALLED: Final = layout.OPTIONS + 5  # 1: nobody waits for it any more
O_STALLED_AT: Final = layout.OPTIONS + 6  # monotonic ns of the last look that found it so, 0: none
LOOK_NS: Final = 50_000_000  # counts at most between two looks: who was not running has not seen a peer stall
SUSPECT_NS: Final = 60_000_000_000  # so long after a stall the next one takes a tenth of stall_timeout
