"""A datagram is put together of its IP fragments, in the compare: RFC 791, 3.2; RFC 8200, 4.5."""

from __future__ import annotations

from ring.atomics import be16, byte, copy, put_be16, put_byte
from ring.hot import hot
from stages.compare.kernels.slots import fill_slot, slot, take_slot
from stages.compare.layout import conns, memory, options, slots
from stages.packets.kernels.checksum import delta32, updated
from stages.packets.kernels.parse import parse_packet
from stages.packets.kernels.tunnels import read_packet
from stages.packets.layout import networks, parsed, transports

_LARGEST = 65_535  # bytes of an IPv4 datagram, or of what follows the fixed header of IPv6


@hot
def put_together(u8, w, row, side, n, m, end, b, now):
    """The datagram of group ``n`` and of fragment ``m`` in a slot of its own, parsed into the words at ``b``.

    ``end`` bytes long without the headers that each fragment has.  -1: no slot is free; -2: it is too large.  What the
    row of its connection is to say as transport is left in ``slots.TRANSPORT``.
    """
    first = m + 1
    if w[slot(w, m) + slots.PLACE] >> 1 != 0:
        first = w[slot(w, n) + slots.PARTS]
        while w[slot(w, first - 1) + slots.PLACE] >> 1 != 0:
            first = w[slot(w, first - 1) + slots.SIBLING]
    x = slot(w, first - 1)
    at = w[x + slots.BYTES] + w[x + slots.VNET]
    read_packet(u8, w, at, w[x + slots.FRAME] - w[x + slots.VNET], b, w[options.TUNNELS])
    l3 = w[b + parsed.L3]
    header = w[b + parsed.L4] - (0 if w[b + parsed.IPV] == 4 else 8)
    if header - l3 - (0 if w[b + parsed.IPV] == 4 else 40) + end > _LARGEST:
        return -2
    if header + end > memory.CLASS_BYTES[-1]:  # headers of a tunnel may be long
        return -2
    whole = take_slot(w, row, side, header + end)
    if whole < 0:
        return -1
    fill_slot(w, whole, header + end, 0, now)
    y = slot(w, whole)
    to = w[y + slots.BYTES]
    copy(u8, to, at, header)
    if w[b + parsed.IPV] == 4:
        _mend_ipv4(u8, to + l3, header - l3 + end)
    else:
        _mend_ipv6(u8, to + l3, header - l3, byte(u8, at + header), header - l3 - 40 + end)
    part = w[slot(w, n) + slots.PARTS]
    while part != 0:
        _copy_part(u8, w, to + header, part - 1)
        part = w[slot(w, part - 1) + slots.SIBLING]
    _copy_part(u8, w, to + header, m)
    proto = byte(u8, to + l3 + 9) if w[b + parsed.IPV] == 4 else byte(u8, at + header)
    # The packet alone: headers of a tunnel before it tell the length of the first fragment.
    via, network = w[b + parsed.PORTS] & networks.VIA, w[b + parsed.VLAN] & ~(networks.VERSION << networks.VERSION_AT)
    transport = parse_packet(u8, w, to, l3, 0x0800 if w[b + parsed.IPV] == 4 else 0x86DD, header + end, b, network)
    if transport == transports.OTHER or transport == transports.FRAGMENT:  # not to be read: compared as it is
        w[b + parsed.PORTS] = proto << 32
        w[b + parsed.L4] = header
        w[b + parsed.END] = header + end
        transport = transports.TCP
    w[b + parsed.PORTS] |= via
    if transport == transports.TCP:
        w[b + parsed.PORTS] |= conns.KEY_ALONE
        transport = transports.IP
    w[y + slots.SEQ] = 0
    w[y + slots.TRANSPORT] = transport
    w[y + slots.FLAGS] = 0
    w[y + slots.END] = 0
    w[y + slots.DATA] = w[b + parsed.L4]
    w[y + slots.DATA_LEN] = w[b + parsed.END] - w[b + parsed.L4]
    return whole


@hot
def _copy_part(u8, w, to, m):
    x = slot(w, m)
    copy(u8, to + (w[x + slots.PLACE] >> 1), w[x + slots.BYTES] + w[x + slots.DATA], w[x + slots.DATA_LEN])


@hot
def _mend_ipv4(u8, ip, total):
    """Make the header of a first fragment that of the whole datagram: total length, no more fragments, checksum."""
    delta = delta32(be16(u8, ip + 2) << 16 | be16(u8, ip + 6), total << 16)
    put_be16(u8, ip + 10, updated(be16(u8, ip + 10), delta))
    put_be16(u8, ip + 2, total)
    put_be16(u8, ip + 6, 0)


@hot
def _mend_ipv6(u8, ip, size, proto, length):
    """Make the ``size`` bytes of headers before a fragment header those of the whole: payload length, next header."""
    put_be16(u8, ip + 4, length)
    field, following = ip + 6, ip + 40
    while following < ip + size:
        kind = byte(u8, field)
        field = following
        if kind == 51:
            following += 8 + byte(u8, field + 1) * 4
        else:
            following += 8 if kind == 44 else 8 + byte(u8, field + 1) * 8
    put_byte(u8, field, proto)
