"""What is never compared: what has no key, and what hosts and routers say to one another about their link.

No two replicas say the latter alike: when, and for some in which words, each draws at random.  Nothing of a service is
in it, so the primary's leaves at once and the secondary's is dropped, as with ARP.
"""

from __future__ import annotations

from ring.atomics import byte
from ring.hot import hot
from ring.kernels.ledger import count
from stages.compare.layout import counters
from stages.packets.kernels.parse import has_key
from stages.packets.layout import parsed, transports

_ICMP, _IGMP, _ICMPV6, _PIM = 1, 2, 58, 103  # protocol numbers
_ALL_PIM_ROUTERS = 0xE000000D  # 224.0.0.13
_LINK_LOCAL_GROUP = (0xFF02 << 48) - (1 << 64)  # high half of ff02::d, as the parser's signed word


@hot
def never_compared(u8, w, s, at, transport):
    """Whether the frame at byte index ``at`` (fields at ``s``) is none that two replicas could agree on."""
    return not has_key(transport) or _about_the_link(u8, w, s, at, transport)


@hot
def count_uncompared(w, row, transport):
    """Count why a packet was left uncompared, where a person should know that it might have been compared."""
    if transport == transports.ENCAPSULATED:
        count(w, row, counters.UNCOMPARED_ENCAPSULATED, 1)
    elif transport == transports.TUNNEL:
        count(w, row, counters.UNCOMPARED_TUNNEL, 1)


@hot
def _about_the_link(u8, w, s, at, transport):
    """Whether it is signalling of the link: who is there, which groups are listened to, which routers there are.

    IGMP (RFC 2236, RFC 3376: reports come after a random delay), also in fragments, whose protocol number each has.
    PIM to all routers of the link (RFC 7761: random identifiers of a generation, random timers), not what it sends to
    one router: that has data inside.  ICMP router discovery (RFC 1256: types 9 and 10).  ICMPv6: MLD (RFC 2710, RFC
    3810: 130 to 132, 143), neighbour discovery (RFC 4861: 133 to 137), multicast router discovery (RFC 4286: 151 to
    153).
    """
    proto = w[s + parsed.PROTO]
    if w[s + parsed.IPV] == 4:
        if proto == _IGMP:
            return True
        if proto == _PIM:
            return w[s + parsed.DST + 1] == _ALL_PIM_ROUTERS
        if proto != _ICMP or transport != transports.ICMP or w[s + parsed.END] <= w[s + parsed.L4]:
            return False
        kind = byte(u8, at + w[s + parsed.L4])
        return kind == 9 or kind == 10
    if proto == _PIM:
        return w[s + parsed.DST] == _LINK_LOCAL_GROUP and w[s + parsed.DST + 1] == 0xD
    if proto != _ICMPV6 or transport != transports.ICMP or w[s + parsed.END] <= w[s + parsed.L4]:
        return False
    kind = byte(u8, at + w[s + parsed.L4])
    return 130 <= kind <= 137 or kind == 143 or 151 <= kind <= 153
