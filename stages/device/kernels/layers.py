"""From outside in to the transport header that a virtio-net header speaks of, through tags and tunnels.

Every header on the way that has a length of its own is noted: each segment's has to be its own, too.  So this is not
`stages.packets.kernels.parse`, which tells conversations apart, and goes one tunnel deep: here the place of the
transport is known, and what is on the way to it has to be in order, or it would be written wrongly.

802.1Q; RFC 791; RFC 8200; GRE, RFC 2784 and RFC 2890; VXLAN, RFC 7348; GENEVE, RFC 8926; IP in IP, RFC 2003, RFC 2473.
"""

from __future__ import annotations

from ring.atomics import be16, byte
from ring.hot import hot
from stages.device.layout import segmentation

_IPV4, _IPV6, _ETHERNET = 0x0800, 0x86DD, 0x6558  # EtherTypes, the last one of a whole frame in a tunnel
_HOPS, _ROUTING, _DESTINATION = 0, 43, 60  # extension headers that the transport may stand behind
_IN_IPV4, _IN_IPV6, _UDP, _GRE = 4, 41, 17, 47
_GRE_KEY = 0x2000
_VXLAN, _VXLAN_OLD, _GENEVE = 4789, 8472, 6081  # UDP ports, those of `stages.packets.kernels.tunnels`


@hot
def note(w, c, layer, at):
    """Note a layer; the caller has seen that there is room."""
    n = w[c + segmentation.LAYERS_N]
    w[c + segmentation.LAYERS + n] = at << 2 | layer
    w[c + segmentation.LAYERS_N] = n + 1


@hot
def behind_tags(u8, frame, at, end):
    """(EtherType, offset behind it) of an Ethernet header whose type or first tag is at offset ``at``; 0: cut off."""
    while at + 2 <= end:
        kind = be16(u8, frame + at)
        if kind != 0x8100 and kind != 0x88A8 and kind != 0x9100:
            return kind, at + 2
        at += 4
    return 0, end


@hot
def through_ipv4(u8, w, c, frame, at, end):
    """(protocol, offset behind the header, end of the datagram); protocol -1: it cannot be read, or is a fragment."""
    if end - at < 20 or byte(u8, frame + at) >> 4 != 4:
        return -1, at, end
    size, total = (byte(u8, frame + at) & 15) * 4, be16(u8, frame + at + 2)
    stop = at + total if total != 0 else end  # 0: longer than the field can say
    if size < 20 or at + size > stop or stop > end or be16(u8, frame + at + 6) & 0x3FFF != 0:
        return -1, at, end
    note(w, c, segmentation.IPV4, at)
    return byte(u8, frame + at + 9), at + size, stop


@hot
def through_ipv6(u8, w, c, frame, at, end, routed):
    """The same for IPv6; unless ``routed``, its destination must be the last one, which the pseudo header has."""
    if end - at < 40 or byte(u8, frame + at) >> 4 != 6:
        return -1, at, end
    size, protocol = be16(u8, frame + at + 4), byte(u8, frame + at + 6)
    stop = at + 40 + size if size != 0 else end
    if stop > end or (size == 0 and protocol == _HOPS):  # a jumbogram's length stands in its options, RFC 2675
        return -1, at, end
    note(w, c, segmentation.IPV6, at)
    at += 40
    while protocol == _HOPS or protocol == _ROUTING or protocol == _DESTINATION:
        if stop - at < 8 or stop - at < 8 + 8 * byte(u8, frame + at + 1):
            return -1, at, end
        if protocol == _ROUTING and not routed and byte(u8, frame + at + 3) != 0:
            return -1, at, end
        protocol = byte(u8, frame + at)
        at += 8 + 8 * byte(u8, frame + at + 1)
    return protocol, at, stop


@hot
def through_tunnel(u8, w, c, frame, protocol, at, end):
    """(EtherType of what is inside, its offset); 0: no tunnel that is known here, or one that counts or sums."""
    if protocol == _IN_IPV4:
        return _IPV4, at
    if protocol == _IN_IPV6:
        return _IPV6, at
    if end - at < 16:
        return 0, at
    kind = 0
    if protocol == _GRE and be16(u8, frame + at) & ~_GRE_KEY == 0:
        kind = be16(u8, frame + at + 2)
        at += 8 if be16(u8, frame + at) != 0 else 4
    elif protocol == _UDP:
        note(w, c, segmentation.TUNNEL, at)
        port = be16(u8, frame + at + 2)
        if port == _VXLAN or port == _VXLAN_OLD:
            kind = _ETHERNET
            at += 16
        elif port == _GENEVE:
            kind = be16(u8, frame + at + 10)
            at += 16 + (byte(u8, frame + at + 8) & 63) * 4
    if kind == _ETHERNET:
        return behind_tags(u8, frame, at + 12, end)
    return kind, at


@hot
def find_transport(u8, w, c, frame, length, protocol, start):
    """(offset of the header of transport ``protocol``, end of its datagram), layers noted; offset -1: not found.

    ``start``: where it must stand, or -1: directly in the frame's own datagram.
    """
    w[c + segmentation.LAYERS_N] = 0
    kind, at = behind_tags(u8, frame, 12, length)
    end = length
    while w[c + segmentation.LAYERS_N] + 2 <= segmentation.MOST_LAYERS:
        found = -1
        if kind == _IPV4:
            found, at, end = through_ipv4(u8, w, c, frame, at, end)
        elif kind == _IPV6:
            found, at, end = through_ipv6(u8, w, c, frame, at, end, start >= 0)
        if found == protocol and (start < 0 or start == at):
            return at, end
        if found < 0 or start <= at:
            break
        kind, at = through_tunnel(u8, w, c, frame, found, at, end)
    return -1, end
