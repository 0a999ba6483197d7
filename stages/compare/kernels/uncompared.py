"""What the compare never compares: it has no key, or no two replicas send it alike."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import count
from stages.compare.layout import counters
from stages.packets.kernels.parse import finds_neighbours, has_key
from stages.packets.layout import transports


@hot
def never_compared(u8, w, s, frame, transport):
    """Whether the packet of ``transport`` in the frame at byte ``frame`` (fields at ``s``) is not to be compared."""
    return not has_key(transport) or (transport == transports.ICMP and finds_neighbours(u8, w, s, frame))


@hot
def count_uncompared(w, row, transport):
    """Count why a packet was left uncompared, where a person should know that it might have been compared."""
    if transport == transports.ENCAPSULATED:
        count(w, row, counters.UNCOMPARED_ENCAPSULATED, 1)
    elif transport == transports.TUNNEL:
        count(w, row, counters.UNCOMPARED_TUNNEL, 1)
