"""Counters of a stream socket."""

from __future__ import annotations

from typing import Final

from ring.layout import Counters

_OWN = Counters()
RECEIVED_BYTES: Final = _OWN.counter("received_bytes", "bytes received in whole frames, length words included")
SENT_BYTES: Final = _OWN.counter("sent_bytes", "bytes handed to the kernel in whole frames, length words included")
CONNECTS: Final = _OWN.counter("connects", "times that a peer was connected")
DISCONNECTS: Final = _OWN.counter("disconnects", "times that a connected peer was lost")
BAD_FRAMES: Final = _OWN.counter("bad_frames", "connections dropped because of a frame length that is impossible")
PARTIAL_BYTES: Final = _OWN.counter(
    "partial_bytes", "received bytes of unfinished frames, dropped with their connection"
)
RESENT_BYTES: Final = _OWN.counter(
    "resent_bytes", "bytes of a cut-off frame that the next connection gets again, from the frame's start"
)
UNREAD_BYTES: Final = _OWN.counter("unread_bytes", "bytes that the peer sent although nothing here reads this link")
DROPPED_BEFORE_FAILOVER: Final = _OWN.counter(
    "dropped_before_failover", "frames of a secondary's guest kept from the network, as no failover was announced"
)
UNREAD_PEER: Final = _OWN.counter(
    "unread_peer", "1: the present peer sends, and nothing here reads this link: two ports are exchanged, perhaps"
)
COUNTERS: Final = _OWN.listed
