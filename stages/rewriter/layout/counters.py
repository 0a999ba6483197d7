"""Counters of a filter-rewriter."""

from __future__ import annotations

from typing import Final

from ring.layout import Counters

_OWN = Counters()
REWRITTEN_IN: Final = _OWN.counter(
    "rewritten_in", "inbound segments moved to the secondary's numbers: ack, SACK blocks, TSecr"
)
REWRITTEN_OUT: Final = _OWN.counter("rewritten_out", "outbound segments moved to the primary's numbers: seq, TSval")
REWRITTEN_ERRORS: Final = _OWN.counter(
    "rewritten_errors", "inbound ICMP errors whose quoted segment was moved to the secondary's numbers"
)
PASSED_ALIGNED: Final = _OWN.counter(
    "passed_aligned", "segments of known connections in which both replicas use the same numbers"
)
PASSED_HANDSHAKE: Final = _OWN.counter(
    "passed_handshake", "SYN segments, and segments before a connection's seq_offset is known"
)
PASSED_NO_NUMBER: Final = _OWN.counter(
    "passed_no_number", "segments of known connections without a number to rewrite: no ACK, a SYN refused"
)
PASSED_UNKNOWN: Final = _OWN.counter("passed_unknown", "TCP segments of connections whose start was not seen here")
PASSED_UNASKED: Final = _OWN.counter("passed_unasked", "inbound SYN+ACKs for which no SYN of the guest was seen here")
PASSED_FRAGMENT: Final = _OWN.counter(
    "passed_fragment", "IP fragments without a TCP header: all but the first, and other protocols"
)
PASSED_ENCAPSULATED: Final = _OWN.counter(
    "passed_encapsulated", "packets whose IP header may stand behind headers that are not read: MPLS, a fifth VLAN tag"
)
PASSED_NOT_TCP: Final = _OWN.counter("passed_not_tcp", "everything else that is not TCP")
PASSED_OFF: Final = _OWN.counter("passed_off", "packets passed while the status was off")
CONNECTIONS: Final = _OWN.counter("connections", "connections open now")
CONNECTIONS_OPENED: Final = _OWN.counter("connections_opened", "connections that started")
CONNECTIONS_CLOSED: Final = _OWN.counter("connections_closed", "connections closed: both FINs acknowledged")
CONNECTIONS_RESET: Final = _OWN.counter("connections_reset", "connections ended by a RST")
CONNECTIONS_REPLACED: Final = _OWN.counter(
    "connections_replaced", "open connections whose addresses the guest used for a new one"
)
CONNECTIONS_EVICTED: Final = _OWN.counter(
    "connections_evicted", "established connections, the longest silent, given up for want of room"
)
HALF_OPEN_EVICTED: Final = _OWN.counter(
    "half_open_evicted", "connections whose handshake was not over, the oldest, given up for want of room"
)
ROWS_RECYCLED: Final = _OWN.counter("rows_recycled", "closed connections forgotten for want of room")
CONNECTIONS_UNTRACKED: Final = _OWN.counter(
    "connections_untracked", "connections left alone: no row could be had, or the guest's SYN carries data"
)
CHECKPOINTS: Final = _OWN.counter("checkpoints", "checkpoints taken: every seq_offset and ts_offset became 0")
FAILOVERS: Final = _OWN.counter(
    "failovers", "failovers taken: known connections go on being rewritten, new ones are left alone"
)
ANSWERED_ARP: Final = _OWN.counter(
    "answered_arp", "ARP requests of the guest for a neighbour that were answered here, before a failover"
)
ANSWERED_ND: Final = _OWN.counter(
    "answered_nd", "neighbour solicitations of the guest that were answered here, before a failover"
)
UNANSWERED_FULL: Final = _OWN.counter(
    "unanswered_full", "of both those for which there was no room towards the guest: it asks again"
)
ANNOUNCED: Final = _OWN.counter(
    "announced", "frames that told the network after a failover where the guest is: RARP, ARP, neighbour advertisements"
)
ADDRESSES: Final = _OWN.counter("addresses", "addresses known now, of the guest and of its neighbours")
ADDRESSES_LEARNT: Final = _OWN.counter("addresses_learnt", "addresses heard of that were not known")
ADDRESSES_EVICTED: Final = _OWN.counter(
    "addresses_evicted", "addresses of neighbours, those heard of longest ago, given up for want of room"
)
ADDRESSES_UNTRACKED: Final = _OWN.counter(
    "addresses_untracked", "times that an address was not learnt: no room, or half of it is the guest's already"
)
COUNTERS: Final = _OWN.listed
