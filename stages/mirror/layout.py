"""Ports, counters and options of a filter-mirror, and what its kernel notes of outdev.

The notes are not committed: a new process of the stage begins with zeros.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Words
from ring.layout import OPTIONS, Counters
from stages.packets.layout import parsed

TX_IN, RX_IN = range(2)
TX_OUT, RX_OUT, OUTDEV = range(3)

_OWN = Counters()
DROPPED_NO_PEER: Final = _OWN.counter("dropped_no_peer", "copies not made because outdev had no peer connected")
DROPPED_STALLED: Final = _OWN.counter(
    "dropped_stalled", "copies not made because outdev was full and took nothing for stall_timeout"
)
MPTCP_TAKEN_OUT: Final = _OWN.counter(
    "mptcp_taken_out", "segments with SYN to the guest out of which options of MPTCP were taken (strip_mptcp)"
)
COUNTERS: Final = _OWN.listed

_OPTIONS = Words("worker", start=OPTIONS)
STALL_NS: Final = _OPTIONS.word("stall_ns", "ns of stall_timeout, 0: wait for ever")
STRIP_MPTCP: Final = _OPTIONS.word("strip_mptcp", "1: options of MPTCP are taken out of segments with SYN", "bool")

_NOTES = Words("kernels", start=_OPTIONS.end)
TAKEN: Final = _NOTES.word("taken", "head of outdev at the last look")
FULL_NS: Final = _NOTES.word("full_ns", "ns for which outdev has been full and has taken nothing")
LOOKED: Final = _NOTES.word("looked", "monotonic ns of the last look at a full outdev", "ns")
LINK: Final = _NOTES.word("link", "outdev's link word, of the connection that these notes are about")
STALLED: Final = _NOTES.word("stalled", "1: the mirror no longer waits for outdev", "bool")
SCRATCH: Final = _NOTES.word("scratch", "the frame at hand, see `stages.packets.layout.parsed`", size=parsed.SCRATCH)
STALLED_AT: Final = _NOTES.word("stalled_at", "monotonic ns of the last look that found it so, 0: none", "ns")
FIELDS: Final = (*_OPTIONS.fields, *_NOTES.fields)

LOOK_NS: Final = 50_000_000  # counts at most between two looks: who was not running has not seen a peer stall
SUSPECT_NS: Final = 60_000_000_000  # so long after a stall the next one takes a tenth of stall_timeout
