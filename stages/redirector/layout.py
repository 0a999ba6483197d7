"""filter-redirector: ports and counters."""

from __future__ import annotations

from typing import Final

from stages.kind import OWN_COUNTERS, Counter

TX_IN, RX_IN, INDEV = range(3)
TX_OUT, RX_OUT, OUTDEV = range(3)

PASSED_ON, NO_PEER, INJECTED_TX, INJECTED_RX, INJECTED_TWICE = range(OWN_COUNTERS, OWN_COUNTERS + 5)
COUNTERS: Final = (
    Counter("passed_on", "packets of the chain that stayed in it: no outdev, status off, or no peer there"),
    Counter("passed_no_peer", "those of them that outdev would have got, had a peer been connected"),
    Counter("injected_tx", "frames from indev that entered the chain towards the guest"),
    Counter("injected_rx", "frames from indev that entered the chain towards the network"),
    Counter("injected_twice", "frames from indev that entered the chain in both directions"),
)
