"""Reading a frame: up to four VLAN tags, PPPoE sessions (RFC 2516), IPv4 (RFC 791), IPv6 with extension headers (RFC
8200), TCP (RFC 9293), UDP, ICMP.  Every length is checked before it is used; what cannot be read is `OTHER`, or
`ENCAPSULATED` where IP may stand behind headers that are not read.

What is inside of a tunnel: `stages.packets.kernels.tunnels`.
"""

from __future__ import annotations

from ring.atomics import be16, be32, be64, byte
from ring.hot import hot
from stages.packets.layout import networks, parsed, transports


@hot
def parse(u8, w, at, length, s):
    """Read the frame of ``length`` bytes at byte index ``at``; its fields go to the scratch words at ``s``.

    Returns OTHER, ENCAPSULATED, TCP, UDP, ICMP, IP or FRAGMENT.
    """
    if length < 14:
        return transports.OTHER
    return parse_packet(u8, w, at, 14, be16(u8, at + 12), length, s, 0)


@hot
def has_key(transport):
    """Whether a packet is one that can be told from others by its key."""
    return transports.TCP <= transport <= transports.FRAGMENT


@hot
def parse_packet(u8, w, at, l3, kind, length, s, network):
    """`parse` what stands from ``l3`` to ``length`` bytes behind ``at``, the EtherType before it being ``kind``.

    ``network``: of what is around it, as `parsed.VLAN` has it; 0: nothing but a frame.
    """
    tags = 0
    while (kind == 0x8100 or kind == 0x88A8 or kind == 0x9100) and tags >> 32 < 2:
        if length < l3 + 4:
            return transports.OTHER
        tags = ((tags >> 32) + 1) << 32 | (tags & 0xFFFF) << 16 | (be16(u8, at + l3) & 0xFFF)
        kind = be16(u8, at + l3 + 2)
        l3 += 4
    if kind != 0x0800 and kind != 0x86DD:
        l3, kind, length, network = _unwrap(u8, at, l3, kind, length, network)
        if kind < 0x0800:
            w[s + parsed.L3] = l3
            return kind
    w[s + parsed.L3] = l3
    # One call of each, or the compiler would not put them in here.
    if kind == 0x0800:
        return _ipv4(u8, w, at, length, s, l3, tags & 0xFFFFFFFF | network)
    return _ipv6(u8, w, at, length, s, l3, tags & 0xFFFFFFFF | network)


@hot
def _unwrap(u8, at, l3, kind, length, network):
    """What is behind an EtherType that is not IP's: a third and a fourth tag, a PPPoE session.

    Returns where the IP packet begins, its EtherType (or OTHER or ENCAPSULATED), its end and its network.
    """
    if kind == 0x8864:
        return _pppoe(u8, at, l3, length, network)
    tags = further = 0
    while (kind == 0x8100 or kind == 0x88A8 or kind == 0x9100) and tags < 2:
        if network != 0:
            return l3, transports.ENCAPSULATED, length, 0  # a key has room for a tunnel's id, or for those of tags
        if length < l3 + 4:
            return l3, transports.OTHER, length, 0
        further |= (be16(u8, at + l3) & 0xFFF) << 12 * (1 - tags)
        kind = be16(u8, at + l3 + 2)
        tags += 1
        l3 += 4
    if kind != 0x0800 and kind != 0x86DD:
        return l3, _not_ip(u8, at, length, l3, kind), length, 0
    return l3, kind, length, networks.TAGS << networks.KIND_AT | further << networks.ID_AT


@hot
def _pppoe(u8, at, l3, length, network):
    """`_unwrap` a packet of a PPPoE session, whose header of 6 bytes is at ``l3``.

    The protocol behind it has two bytes, or one, which is then odd (RFC 1661, 6.5): IPv4 (RFC 1332), IPv6 (RFC 5072).
    """
    if length < l3 + 8:
        return l3, transports.OTHER, length, 0
    head = be32(u8, at + l3)
    end = l3 + 6 + be16(u8, at + l3 + 4)  # a short frame is padded behind it
    if head >> 16 != 0x1100 or network != 0:  # version and type 1, code 0; one id has room in a key
        return l3, transports.ENCAPSULATED, length, 0
    if end < l3 + 8 or length < end:
        return l3, transports.OTHER, length, 0
    protocol, size = byte(u8, at + l3 + 6), 7
    if protocol & 1 == 0:
        protocol, size = protocol << 8 | byte(u8, at + l3 + 7), 8
    kind = 0x0800 if protocol == 0x0021 else 0x86DD if protocol == 0x0057 else transports.ENCAPSULATED
    return l3 + size, kind, end, networks.PPPOE << networks.KIND_AT | (head & 0xFFFF) << networks.ID_AT


@hot
def _not_ip(u8, at, length, l3, kind):
    """OTHER, or ENCAPSULATED where the EtherType ``kind`` before ``l3`` is of what may have IP in it."""
    if (
        kind == 0x8100  # a fifth tag
        or kind == 0x88A8
        or kind == 0x9100
        or kind == 0x9200  # tags of old switches
        or kind == 0x9300
        or kind == 0x8864  # PPPoE behind more than two tags
        or kind == 0x8847  # MPLS
        or kind == 0x8848
        or kind == 0x88E7  # backbone bridges (802.1ah)
        or kind == 0x88E5  # MACsec
        or kind == 0x894F  # NSH (RFC 8300)
        or kind == 0x22F3  # TRILL
        or kind == 0x892F  # HSR
    ):
        return transports.ENCAPSULATED
    # A length in place of a type: IP in LLC and SNAP (RFC 1042).
    if kind <= 1500 and length >= l3 + 8 and be32(u8, at + l3) == 0xAAAA0300 and be16(u8, at + l3 + 4) == 0:
        kind = be16(u8, at + l3 + 6)
        if kind == 0x0800 or kind == 0x86DD:
            return transports.ENCAPSULATED
    return transports.OTHER


@hot
def _ipv4(u8, w, at, length, s, l3, network):
    """Read the IPv4 packet ``l3`` bytes behind ``at``; ``network`` is `parsed.VLAN` without the IP version.

    A sender with TSO may leave the total length 0 (some drivers, and BIG TCP of Linux, whose packets are too long for
    its 16 bits): then the frame says it.  One that may be padded, to 46 bytes behind the Ethernet header and tags, says
    nothing, and there is no reason for one of them to have it so: that stays unread.
    """
    ip = at + l3
    if length < l3 + 20 or byte(u8, ip) >> 4 != 4:
        return transports.OTHER
    header = (byte(u8, ip) & 15) * 4
    total = be16(u8, ip + 2)
    fragment = be16(u8, ip + 6)
    if header < 20 or total < header or length < l3 + total:
        if header < 20 or total != 0 or length <= l3 + 46 or length < l3 + header or fragment & 0x3FFF != 0:
            return transports.OTHER
        total = length - l3
    w[s + parsed.IPV] = 4
    w[s + parsed.SRC] = 0
    w[s + parsed.SRC + 1] = be32(u8, ip + 12)
    w[s + parsed.DST] = 0
    w[s + parsed.DST + 1] = be32(u8, ip + 16)
    w[s + parsed.VLAN] = 4 << 32 | network
    w[s + parsed.END] = l3 + total
    w[s + parsed.IP_ID] = be16(u8, ip + 4)
    w[s + parsed.FRAG] = (fragment & 0x1FFF) << 4 | fragment >> 13 & 1
    return _transport(u8, w, at, s, byte(u8, ip + 9), l3 + header, fragment & 0x3FFF != 0)


@hot
def _ipv6(u8, w, at, length, s, l3, network):
    """The same of an IPv6 packet.

    A payload length of 0 is that of a jumbo payload (BIG TCP of Linux, with or without the option of RFC 2675), or of a
    packet without any, which is padded.  A jumbo payload is never in fragments.
    """
    ip = at + l3
    if length < l3 + 40 or byte(u8, ip) >> 4 != 6:
        return transports.OTHER
    size = be16(u8, ip + 4)
    end = l3 + 40 + size
    if size == 0 and length > l3 + 46:
        end = length
    if length < end:
        return transports.OTHER
    w[s + parsed.IPV] = 6
    for i in range(2):
        w[s + parsed.SRC + i] = be64(u8, ip + 8 + 8 * i)
        w[s + parsed.DST + i] = be64(u8, ip + 24 + 8 * i)
    w[s + parsed.VLAN] = 6 << 32 | network
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
            if be16(u8, ip + 4) == 0:
                return transports.OTHER
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
