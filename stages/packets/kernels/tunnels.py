"""Tunnels: VXLAN (RFC 7348), GENEVE (RFC 8926), GRE (RFC 2784, RFC 2890), IP in IP (RFC 2003, RFC 2473, RFC 4213).

What two replicas put around a packet is not the same (the source port of VXLAN and GENEVE is a hash with a secret of
each boot), and TCP inside has numbers of its own on each.  So a stage reads the packet inside, and its key gets the
tunnel's id: `stages.packets.layout.networks`.  One level: a tunnel within a tunnel is a packet like others.

A header with anything in its reserved bits is none of a tunnel, as Linux has it: the ports are no proof.  What is cut,
or is no tunnel after all, is the packet that it would be without tunnels.
"""

from __future__ import annotations

from ring.atomics import be16, be32, byte
from ring.hot import hot
from stages.packets.kernels.parse import has_key, parse, parse_packet
from stages.packets.kernels.table import mix
from stages.packets.layout import networks, parsed, transports


@hot
def read_packet(u8, w, at, length, s, policy):
    """`parse` the frame of ``length`` bytes at ``at``, and where it is a tunnel's do as ``policy`` says.

    networks.INNER: the fields at ``s`` are those of the packet inside; networks.PASS: returns TUNNEL.
    """
    transport = parse(u8, w, at, length, s)
    if transport == transports.UDP:
        port = w[s + parsed.PORTS] & 0xFFFF
        if (port == 4789 or port == 6081 or port == 8472) and policy != networks.OUTER:
            return _enter(u8, w, at, length, s, transport, policy)
    elif transport == transports.IP:
        proto = w[s + parsed.PROTO]
        if (proto == 4 or proto == 41 or proto == 47) and policy != networks.OUTER:
            return _enter(u8, w, at, length, s, transport, policy)
    return transport


@hot
def tunnelled(w, s):
    """Whether the packet whose fields are at ``s`` is one from inside of a tunnel."""
    return w[s + parsed.VLAN] >> networks.KIND_AT & networks.KIND >= networks.VXLAN


@hot
def is_partial(u8, w, s, at, vnet):
    """Whether the transport's checksum of the frame at ``at`` is still to be made by a network card.

    The ``vnet`` bytes before it are its virtio-net header (virtio 1.2, 5.1.6: NEEDS_CSUM is bit 0 of the first).  In a
    tunnel it names the place, little-endian: one of the two checksums is still to be made, the other is there.
    """
    if vnet == 0 or byte(u8, at - vnet) & 1 == 0:
        return False
    if not tunnelled(w, s):
        return True
    return vnet >= 8 and byte(u8, at - vnet + 6) | byte(u8, at - vnet + 7) << 8 == w[s + parsed.L4]


@hot
def _enter(u8, w, at, length, s, transport, policy):
    """`read_packet` of what may be a tunnel's by its port or protocol."""
    if transport == transports.UDP:
        start, kind, network = _udp_header(u8, w, at, s)
    elif w[s + parsed.PROTO] == 47:
        start, kind, network = _gre_header(u8, w, at, s)
    else:
        start, kind = w[s + parsed.L4], 0x0800 if w[s + parsed.PROTO] == 4 else 0x86DD
        network = networks.IP << networks.KIND_AT
    end = w[s + parsed.END]
    if (kind != 0x6558 and kind != 0x0800 and kind != 0x86DD) or end < start + 14:
        return transport
    if policy == networks.PASS:
        return transports.TUNNEL
    via = _via(u8, w, at, s)
    frame = kind == 0x6558
    if frame:
        start += 14
        kind = be16(u8, at + start - 2)
    w[s + parsed.L3] = start
    found = parse_packet(u8, w, at, start, kind, end, s, network)
    if has_key(found):
        w[s + parsed.PORTS] |= via << networks.VIA_AT
    elif found == transports.OTHER:
        if frame:
            kind = be16(u8, at + w[s + parsed.L3] - 2)
        if kind == 0x0800 or kind == 0x86DD or kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
            return parse(u8, w, at, length, s)  # IP that cannot be read, or cut tags
    return found


@hot
def _udp_header(u8, w, at, s):
    """Where the packet inside begins, its EtherType (0x6558: a frame; 0: none), and `parsed.VLAN`'s kind and id."""
    head = w[s + parsed.DATA]
    if w[s + parsed.END] < head + 8:
        return head, 0, 0
    first, second = be32(u8, at + head), be32(u8, at + head + 4)
    if second & 0xFF != 0:
        return head, 0, 0
    number = (second >> 8) << networks.ID_AT
    if w[s + parsed.PORTS] & 0xFFFF == 6081:
        if first & 0xC0BF0000 != 0:  # version, control message, reserved
            return head, 0, 0
        return head + 8 + (first >> 24 & 63) * 4, first & 0xFFFF, number | networks.GENEVE << networks.KIND_AT
    # The flag that says that there is a VNI alone, or with the group policy extension of Linux (gbp).
    if first != 0x08000000 and first & 0xFFB70000 != 0x88000000:
        return head, 0, 0
    return head + 8, 0x6558, number | networks.VXLAN << networks.KIND_AT


@hot
def _gre_header(u8, w, at, s):
    """The same of GRE, with or without checksum, key and sequence number, which is not looked at."""
    head, end = w[s + parsed.L4], w[s + parsed.END]
    network = networks.GRE << networks.KIND_AT
    if end < head + 4:
        return head, 0, 0
    first = be32(u8, at + head)
    if first & 0x4FFF0000 != 0:  # what RFC 2784 reserves, and the version
        return head, 0, 0
    start = head + 4 + (4 if first & 0x80000000 else 0)
    if first & 0x20000000:
        if end < start + 4:
            return head, 0, 0
        network |= (be32(u8, at + start) & networks.ID) << networks.ID_AT
        start += 4
    return start + (4 if first & 0x10000000 else 0), first & 0xFFFF, network


@hot
def _via(u8, w, at, s):
    """Digest of what tells this tunnel from others of its kind and id; the fields at ``s`` are the outer packet's.

    Where it runs: VLANs and the like; of GRE and IP in IP the two ends as well, in no order, and the rest of the key.
    A VNI names a network wherever its ends are, and they may move.
    """
    v = w[s + parsed.VLAN]
    h = mix(mix(v & 0xFFFFFFFF) ^ v >> networks.KIND_AT)
    proto = w[s + parsed.PROTO]
    if proto != 17:
        h += _mixed(w, s + parsed.SRC) + _mixed(w, s + parsed.DST)
        if proto == 47:
            head = at + w[s + parsed.L4]
            flags = byte(u8, head)
            if flags & 0x20:
                h += 1 + mix(byte(u8, head + (8 if flags & 0x80 else 4)))
    return h & (networks.VIA >> networks.VIA_AT)


@hot
def _mixed(w, at):
    """Digest of the address in the two words at ``at``."""
    h = 0
    for i in range(2):
        x = int(w[at + i])
        h = mix(mix(h ^ (x >> 32 & 0xFFFFFFFF)) ^ (x & 0xFFFFFFFF))
    return h
