"""Counters of a TAP device and of an interface: a TAP device has the first three."""

from __future__ import annotations

from typing import Final

from stages.kind import Counters

_OWN = Counters()
SENT: Final = _OWN.counter("sent", "frames that the device took")
DROPPED_REFUSED: Final = _OWN.counter(
    "dropped_refused", "frames that the interface refused: it is down, it is full, or they exceed its MTU"
)
DROPPED_BEFORE_FAILOVER: Final = _OWN.counter(
    "dropped_before_failover", "frames of a secondary's guest kept from the network, as no failover was announced"
)
DROPPED_BY_KERNEL: Final = _OWN.counter(
    "dropped_by_kernel", "frames for us that the system dropped, because its buffer for us was full"
)
DROPPED_UNREADABLE: Final = _OWN.counter(
    "dropped_unreadable", "frames over 69,632 bytes, or cut in a way that no virtio-net header can say"
)
VLAN_TAGS_RESTORED: Final = _OWN.counter(
    "vlan_tags_restored", "frames whose VLAN tag the system had taken out, put back"
)
CHECKSUMS_FINISHED: Final = _OWN.counter(
    "checksums_finished", "frames of a local sender whose checksum was left to a card, made here"
)
RECEIVED_OVER_MTU: Final = _OWN.counter(
    "received_over_mtu", "frames longer than the MTU: segments that the system had put together"
)
COUNTERS: Final = _OWN.listed

_TAP = Counters()
_TAP.counter("sent", "frames that the device took")
_TAP.counter("dropped_refused", "frames that the TAP device refused: its link is down, or it is no Ethernet frame")
_TAP.counter(
    "dropped_before_failover", "frames of a secondary's guest kept from the network, as no failover was announced"
)
TAP_COUNTERS: Final = _TAP.listed
