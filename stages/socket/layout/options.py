"""Words of a stream socket that its process alone uses, zeroed at every attach: a connection ends with its process."""

from __future__ import annotations

from typing import Final

from ring import layout
from ring.fields import Words
from stages.socket.layout import counters

_NOTES = Words("kernels", start=layout.OPTIONS)
FD: Final = _NOTES.word("fd", "descriptor of the connected socket, -1: none", writer="worker")
FILLED: Final = _NOTES.word(
    "filled", "position in receive up to which bytes were received; behind the tail: unfinished"
)
SENT: Final = _NOTES.word("sent", "position in send up to which bytes were handed over; behind the head: unfinished")
ERRNO: Final = _NOTES.word("errno", "why a connection failed")
BAD_LENGTH: Final = _NOTES.word("bad_length", "length of a frame that is impossible, -1: none was")
MUTE: Final = _NOTES.word("mute", "errno of a failed send: nothing more is sent, but what the peer sent is still read")
GATED: Final = _NOTES.word("gated", "1: nothing is sent before a failover was announced", "bool", writer="worker")
OFFERED: Final = _NOTES.word(
    "offered", "1: somebody is connected who has neither sent anything nor been sent anything", "bool", writer="worker"
)
_NOTES.skip_to(layout.OPTIONS + 8)
TALLIES: Final = len(counters.COUNTERS)
TALLY: Final = _NOTES.word(
    "tally", "what cold code wants added to the kind's own counters, in their order", size=TALLIES, writer="worker"
)
UNREAD: Final = _NOTES.again(
    "unread", TALLY + counters.UNREAD_BYTES - layout.OWN_COUNTERS, "of those: bytes of a link that nothing here reads"
)
FIELDS: Final = _NOTES.fields
