"""Reading a frame: 802.1Q and QinQ tags, IPv4 (RFC 791), IPv6 with extension headers (RFC 8200), TCP (RFC 9293),
UDP, ICMP.  Every length is checked before it is used; what cannot be read is `OTHER`.
"""

from __future__ import annotations

from ring.atomics import be16, be32, be64, byte
from ring.hot import hot
from stages.packets.layout import parsed, transports


@hot
def parse(u8, w, at, length, s):
    """Read the frame of ``length`` bytes at byte index ``at``; its fields go to the scratch words at ``s``.

    Returns OTHER, TCP, UDP, ICMP, IP or FRAGMENT.
    """
    if length < 14:
        return transports.OTHER
    kind = be16(u8, at + 12)
    l3 = 14
    tags = 0
    while (kind == 0x8100 or kind == 0x88A8 or kind == 0x9100) and tags >> 32 < 2:  # at most two tags count
        if length < l3 + 4:
            return transports.OTHER
        tags = ((tags >> 32) + 1) << 32 | (tags & 0xFFFF) << 16 | (be16(u8, at + l3) & 0xFFF)
        kind = be16(u8, at + l3 + 2)
        l3 += 4
    w[s + parsed.L3] = l3
    if kind == 0x0800:
        return _ipv4(u8, w, at, length, s, l3, tags & 0xFFFFFFFF)
    if kind == 0x86DD:
        return _ipv6(u8, w, at, length, s, l3, tags & 0xFFFFFFFF)
    return transports.OTHER


@hot
def _ipv4(u8, w, at, length, s, l3, tags):
    ip = at + l3
    if length < l3 + 20 or byte(u8, ip) >> 4 != 4:
        return transports.OTHER
    header = (byte(u8, ip) & 15) * 4
    total = be16(u8, ip + 2)
    if header < 20 or total < header or length < l3 + total:
        return transports.OTHER
    w[s + parsed.IPV] = 4
    w[s + parsed.SRC] = 0
    w[s + parsed.SRC + 1] = be32(u8, ip + 12)
    w[s + parsed.DST] = 0
    w[s + parsed.DST + 1] = be32(u8, ip + 16)
    w[s + parsed.VLAN] = 4 << 32 | tags
    w[s + parsed.END] = l3 + total
    fragment = be16(u8, ip + 6)
    w[s + parsed.IP_ID] = be16(u8, ip + 4)
    w[s + parsed.FRAG] = (fragment & 0x1FFF) << 4 | fragment >> 13 & 1
    return _transport(u8, w, at, s, byte(u8, ip + 9), l3 + header, fragment & 0x3FFF != 0)


@hot
def _ipv6(u8, w, at, length, s, l3, tags):
    ip = at + l3
    if length < l3 + 40 or byte(u8, ip) >> 4 != 6:
        return transports.OTHER
    end = l3 + 40 + be16(u8, ip + 4)
    if length < end:
        return transports.OTHER
    w[s + parsed.IPV] = 6
    for i in range(2):
        w[s + parsed.SRC + i] = be64(u8, ip + 8 + 8 * i)
        w[s + parsed.DST + i] = be64(u8, ip + 24 + 8 * i)
    w[s + parsed.VLAN] = 6 << 32 | tags
    w[s + parsed.END] = end
    w[s + parsed.IP_ID] = 0
    w[s + parsed.FRAG] = 0
    proto = byte(u8, ip + 6)
    l4 = l3 + 40
    fragmented = False
    # Hop-by-hop, routing, fragment, AH, destination options, mobility, HIP, shim6 (IANA's extension header types).
    while proto in (0, 43, 44, 51, 60, 135, 139, 140):
        if end < l4 + 8:
            return transports.OTHER
        size = 8 + byte(u8, at + l4 + 1) * 8
        if proto == 44:
            size = 8
            offset = be16(u8, at + l4 + 2)
            w[s + parsed.IP_ID] = be32(u8, at + l4 + 4)
            w[s + parsed.FRAG] = (offset & 0xFFF8) << 1 | offset & 1
            fragmented = offset & 0xFFF9 != 0  # else an atomic fragment (RFC 6946): a whole datagram
        elif proto == 51:
            size = 8 + byte(u8, at + l4 + 1) * 4
        proto = byte(u8, at + l4)
        l4 += size
        if fragmented:
            break
        if end < l4:
            return transports.OTHER
    return _transport(u8, w, at, s, proto, l4, fragmented)


@hot
def _transport(u8, w, at, s, proto, l4, fragmented):
    w[s + parsed.PROTO] = proto
    w[s + parsed.L4] = l4
    w[s + parsed.PORTS] = proto << 32
    w[s + parsed.DATA] = l4
    end = w[s + parsed.END]
    w[s + parsed.DATA_LEN] = end - l4
    if fragmented:
        return transports.FRAGMENT
    if proto == 6:
        if end < l4 + 20:
            return transports.OTHER
        header = (byte(u8, at + l4 + 12) >> 4) * 4
        if header < 20 or end < l4 + header:
            return transports.OTHER
        w[s + parsed.PORTS] |= be32(u8, at + l4)
        w[s + parsed.SEQ] = be32(u8, at + l4 + 4)
        w[s + parsed.ACK] = be32(u8, at + l4 + 8)
        w[s + parsed.FLAGS] = byte(u8, at + l4 + 13)
        w[s + parsed.WINDOW] = be16(u8, at + l4 + 14)
        w[s + parsed.DATA] = l4 + header
        w[s + parsed.DATA_LEN] = end - l4 - header
        return transports.TCP
    if proto == 17:
        if end < l4 + 8:
            return transports.OTHER
        w[s + parsed.PORTS] |= be32(u8, at + l4)
        w[s + parsed.DATA] = l4 + 8
        w[s + parsed.DATA_LEN] = end - l4 - 8
        return transports.UDP
    if proto == 1 or proto == 58:
        return transports.ICMP
    return transports.IP


@hot
def reverse_key(w, s):
    """Swap source and destination of the key at ``s``: the other direction of the same conversation."""
    for i in range(2):
        source = int(w[s + parsed.SRC + i])
        w[s + parsed.SRC + i] = w[s + parsed.DST + i]
        w[s + parsed.DST + i] = source
    ports = int(w[s + parsed.PORTS])
    w[s + parsed.PORTS] = ports >> 32 << 32 | (ports & 0xFFFF) << 16 | ports >> 16 & 0xFFFF
