"""Counters of a netdev-pcap."""

from __future__ import annotations

from typing import Final

from ring.layout import Counters

_OWN = Counters()
WRITTEN: Final = _OWN.counter("written", "frames of send that went into the capture `write`")
SWALLOWED: Final = _OWN.counter("swallowed", "frames of send that went nowhere, as there is no `write`")
AWAITED: Final = _OWN.counter("awaited", "frames of send of a flow that waits for such frames")
STRAY: Final = _OWN.counter("stray", "frames of send that nothing in the capture waits for")
UNMET: Final = _OWN.counter("unmet", "times that a flow went on after patience_ms without the frames it waited for")
COUNTERS: Final = _OWN.listed
