"""Counters of a TAP device and of an interface: a TAP device has the first three."""

from __future__ import annotations

from typing import Final

from ring.layout import Counters

_OWN = Counters()
SENT: Final = _OWN.counter("sent", "frames that the device took")
DROPPED_REFUSED: Final = _OWN.counter(
    "dropped_refused",
    "frames that the device refused: it is not there, down or full, or they are too long for it, or no Ethernet frames",
)
DROPPED_BEFORE_FAILOVER: Final = _OWN.counter(
    "dropped_before_failover", "frames of a secondary's guest kept from the network, as no failover was announced"
)
TAP_COUNTERS: Final = _OWN.listed
DROPPED_BY_KERNEL: Final = _OWN.counter(
    "dropped_by_kernel", "frames for us that the system dropped, because its buffer for us was full"
)
DROPPED_UNREADABLE: Final = _OWN.counter("dropped_unreadable", "frames over 69,632 bytes, or too long for the ring")
VLAN_TAGS_RESTORED: Final = _OWN.counter(
    "vlan_tags_restored", "frames whose VLAN tag the system had taken out, put back"
)
CHECKSUMS_FINISHED: Final = _OWN.counter(
    "checksums_finished", "frames of a local sender whose checksum was left to a card, made here"
)
RECEIVED_OVER_MTU: Final = _OWN.counter(
    "received_over_mtu", "frames longer than the MTU: as a rule, segments that the system had put together"
)
FRAMES_CUT: Final = _OWN.counter(
    "frames_cut", "frames that the system had put together, cut into segments as their virtio-net header says"
)
SEGMENTS_MADE: Final = _OWN.counter("segments_made", "frames made of those")
DROPPED_UNCUT: Final = _OWN.counter(
    "dropped_uncut", "frames that the system had put together in a way in which they cannot be cut here"
)
COUNTERS: Final = _OWN.listed
