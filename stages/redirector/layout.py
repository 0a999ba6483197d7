"""Ports and counters of a filter-redirector."""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from ring.layout import OPTIONS, Counters

TX_IN, RX_IN, INDEV = range(3)
TX_OUT, RX_OUT, OUTDEV = range(3)

_OWN = Counters()
PASSED_ON: Final = _OWN.counter(
    "passed_on", "packets of the chain that stayed in it: no outdev, status off, or no peer there"
)
PASSED_NO_PEER: Final = _OWN.counter(
    "passed_no_peer", "those of them that outdev would have got, had a peer been connected"
)
INJECTED_TX: Final = _OWN.counter("injected_tx", "frames from indev that entered the chain towards the guest")
INJECTED_RX: Final = _OWN.counter("injected_rx", "frames from indev that entered the chain towards the network")
INJECTED_TWICE: Final = _OWN.counter("injected_twice", "frames from indev that entered the chain in both directions")
DROPPED_AFTER_FAILOVER: Final = _OWN.counter(
    "dropped_after_failover", "frames from indev that came after a failover, when the guest hears the network itself"
)
COUNTERS: Final = _OWN.listed

_OPTIONS = Words("worker", start=OPTIONS)
SECONDARY: Final = _OPTIONS.word("secondary", "1: it stands aside once a failover was announced", "bool")
FIELDS: Final = _OPTIONS.fields
