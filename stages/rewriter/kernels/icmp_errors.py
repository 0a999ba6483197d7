"""filter-rewriter: ICMP errors about the guest's TCP segments (RFC 792, RFC 4443).

They quote what the peer's side saw: the primary's numbers.  A guest that finds them outside of what it has sent takes
no notice (RFC 5927), so after a failover no path MTU would ever reach it (RFC 1191, RFC 8201).
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, be64, byte, put_be16
from ring.hot import hot
from stages.packets.kernels.checksum import fold, updated
from stages.packets.kernels.parse import reverse_key
from stages.packets.kernels.serial import add
from stages.packets.kernels.table import find
from stages.packets.kernels.tcp_options import move, move_timestamp
from stages.packets.layout import networks, parsed
from stages.rewriter.kernels.connections import current
from stages.rewriter.layout import conns, counters, scalars, tables

_ICMP, _TCP, _ICMPV6 = 1, 6, 58  # protocol numbers
_CHECKSUM = 2  # offset in the ICMP header, of 8 bytes
_SEQ, _TCP_CHECKSUM = 4, 16  # offsets in the TCP header


@hot
def quoted_ipv4(u8, w, ip, end):
    """Byte index of the TCP header quoted in the IPv4 packet at byte ``ip``, or -1; addresses to the key words."""
    if end < ip + 20 or byte(u8, ip) >> 4 != 4 or byte(u8, ip + 9) != _TCP:
        return -1
    size = (byte(u8, ip) & 15) * 4
    if size < 20 or be16(u8, ip + 6) & 0x1FFF != 0:  # not the first fragment
        return -1
    w[tables.SCRATCH_AT + parsed.SRC] = w[tables.SCRATCH_AT + parsed.DST] = 0
    w[tables.SCRATCH_AT + parsed.SRC + 1] = be32(u8, ip + 12)
    w[tables.SCRATCH_AT + parsed.DST + 1] = be32(u8, ip + 16)
    return ip + size


@hot
def quoted_ipv6(u8, w, ip, end):
    """The same of an IPv6 packet; options, routing and fragment headers are passed over."""
    if end < ip + 40 or byte(u8, ip) >> 4 != 6:
        return -1
    proto, tcp = byte(u8, ip + 6), ip + 40
    while proto in (0, 43, 44, 60) and end >= tcp + 8:
        if proto == 44 and be16(u8, tcp + 2) & 0xFFF8 != 0:
            return -1
        size = 8 if proto == 44 else 8 + byte(u8, tcp + 1) * 8
        proto = byte(u8, tcp)
        tcp += size
    if proto != _TCP:
        return -1
    for i in range(2):
        w[tables.SCRATCH_AT + parsed.SRC + i] = be64(u8, ip + 8 + 8 * i)
        w[tables.SCRATCH_AT + parsed.DST + i] = be64(u8, ip + 24 + 8 * i)
    return tcp


@hot
def quoted_tcp(u8, w, at):
    """Byte index of the TCP header that the ICMP error in the scratch words quotes, 8 bytes of it at least, or -1.

    The key words become those of its connection.
    """
    icmp, end = at + w[tables.SCRATCH_AT + parsed.L4], at + w[tables.SCRATCH_AT + parsed.END]
    if end < icmp + 8:
        return -1
    kind, proto, tcp = byte(u8, icmp), w[tables.SCRATCH_AT + parsed.PROTO], -1
    if w[tables.SCRATCH_AT + parsed.IPV] == 4:
        # Unreachable (too big is one of them), source quench, redirect, time exceeded, parameter problem.
        if proto == _ICMP and kind in (3, 4, 5, 11, 12):
            tcp = quoted_ipv4(u8, w, icmp + 8, end)
    elif proto == _ICMPV6 and 1 <= kind <= 4:
        tcp = quoted_ipv6(u8, w, icmp + 8, end)
    if tcp < 0 or end < tcp + 8:
        return -1
    w[tables.SCRATCH_AT + parsed.PORTS] = (
        w[tables.SCRATCH_AT + parsed.PORTS] & networks.VIA | _TCP << 32 | be32(u8, tcp)
    )
    reverse_key(w, tables.SCRATCH_AT)
    return tcp


@hot
def sent_by_guest(w, row, c, seq):
    """How far the quoted ``seq`` is moved to the secondary's numbers.

    Before the offset is known a SYN is all that can be quoted: the guest's has its ISN.
    """
    state = w[c + conns.STATE]
    if state == conns.ESTABLISHED:
        return current(w, row, c, conns.SEQ_OFFSET)
    if state != conns.OPENING and state != conns.ANSWERED:
        return 0
    return (
        add(w[c + conns.LOCAL_ISN], -seq)
        if w[c + conns.GENERATION] == w[row + layout.ROW_SCALARS + scalars.GENERATION]
        else 0
    )


@hot
def rewrite_error(u8, w, row, at, partial):
    """An inbound ICMP packet, in the scratch words; the counter that it falls under.

    The quoted checksum moves with the numbers, as far as it is quoted, so that the quote is what the guest has sent.
    """
    tcp = quoted_tcp(u8, w, at)
    c = find(w, tables.TABLE_AT, tables.SCRATCH_AT) if tcp >= 0 else -1
    if c < 0:
        return counters.PASSED_NOT_TCP
    offset = sent_by_guest(w, row, c, be32(u8, tcp + _SEQ))
    ts_offset = current(w, row, c, conns.TS_OFFSET) if w[c + conns.STATE] == conns.ESTABLISHED else 0
    if offset == 0 and ts_offset == 0:
        return counters.PASSED_NOT_TCP
    left = at + w[tables.SCRATCH_AT + parsed.END] - tcp
    delta = move(u8, tcp, _SEQ, offset) if offset != 0 else 0
    size = (byte(u8, tcp + 12) >> 4) * 4 if left >= 20 else 0
    if ts_offset != 0 and 20 <= size <= left:
        delta = fold(delta + move_timestamp(u8, tcp, size, 0, ts_offset))
    if left >= _TCP_CHECKSUM + 2:
        before = be16(u8, tcp + _TCP_CHECKSUM)
        after = updated(before, delta)
        put_be16(u8, tcp + _TCP_CHECKSUM, after)
        delta = fold(delta + (before ^ 0xFFFF) + after)
    icmp = at + w[tables.SCRATCH_AT + parsed.L4]
    if not partial:
        put_be16(u8, icmp + _CHECKSUM, updated(be16(u8, icmp + _CHECKSUM), delta))
    return counters.REWRITTEN_ERRORS
