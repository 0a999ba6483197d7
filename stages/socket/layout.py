"""chardev socket and netdev stream: ports, counters, and the words that shell and kernel share."""

from __future__ import annotations

from typing import Final

from ring import layout
from stages.kind import OWN_COUNTERS, Counter

SEND: Final = 0
RECEIVE: Final = 0

OWN: Final = (
    Counter("received_bytes", "bytes received in whole frames, length words included"),
    Counter("sent_bytes", "bytes handed to the kernel in whole frames, length words included"),
    Counter("connects", "times that a peer was connected"),
    Counter("disconnects", "times that a connected peer was lost"),
    Counter("bad_frames", "connections dropped because of a frame length that is impossible"),
    Counter("partial_bytes", "received bytes of unfinished frames, dropped with their connection"),
    Counter("resent_bytes", "bytes of a cut-off frame that the next connection gets again, from the frame's start"),
    Counter("unread_bytes", "bytes that the peer sent although nothing here reads this link"),
)
RECEIVED_BYTES, SENT_BYTES, CONNECTS, DISCONNECTS, BAD_FRAMES, PARTIAL_BYTES, RESENT_BYTES, UNREAD_BYTES = range(
    OWN_COUNTERS, OWN_COUNTERS + len(OWN)
)

# Words that this process alone uses, zeroed at every attach: a connection does not outlive its process either.
O_FD: Final = layout.OPTIONS  # the connected socket, -1: none
O_FILLED: Final = (
    layout.OPTIONS + 1
)  # position in `receive` up to which bytes were received; from the tail on: unfinished
O_SENT: Final = (
    layout.OPTIONS + 2
)  # position in `send` up to which bytes were handed over; from the head on: unfinished
O_ERRNO: Final = layout.OPTIONS + 3  # why a connection failed
O_BAD: Final = layout.OPTIONS + 4  # the impossible length
O_MUTE: Final = layout.OPTIONS + 5  # errno of a failed send: nothing more is sent, but what the peer sent is still read
O_TALLY: Final = layout.OPTIONS + 8  # what cold code wants added to the kind's own counters, in their order

# What `link_cycle` tells its shell above the work and the bells.
FLAG_SHIFT: Final = 48
SHORT: Final = 1  # the socket took less than there was: ask for EPOLLOUT
ENDED: Final = 2  # the peer closed the connection
FAILED: Final = 4  # recv or send failed: O_ERRNO
BAD: Final = 8  # an impossible frame at O_FILLED's first unfinished frame: O_BAD
ARRIVED: Final = 16  # bytes were received

BURST_BYTES: Final = 1 << 18
"""The most bytes of one recv or send: a few frames of the other direction never wait longer than that takes."""

SCRATCH_WORDS: Final = 1024
"""Where bytes go that nobody reads."""


SCRATCH: Final = layout.UNDO
