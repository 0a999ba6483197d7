"""Counters of a filter-mirror."""

from __future__ import annotations

from typing import Final

from stages.kind import Counters

_OWN = Counters()
DROPPED_NO_PEER: Final = _OWN.counter("dropped_no_peer", "copies not made because outdev had no peer connected")
DROPPED_STALLED: Final = _OWN.counter(
    "dropped_stalled", "copies not made because outdev was full and took nothing for stall_timeout"
)
COUNTERS: Final = _OWN.listed
