"""The compare's short way: both inputs' next packets are the same TCP segment, and nothing of the connection is held.

Two replicas in step send the same segments in the same order, so this is most of the traffic.  The two frames are
compared where they lie in their rings and the primary's is copied to outdev: no slot, no list, one table look-up.
Whatever is not plain (SYN, FIN, RST, another length, another order, a difference) is left to the long way.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, byte, common_prefix
from ring.hot import hot
from ring.kernels.frames import copy_record, frame_at, index, prefix, vnet_bytes
from ring.kernels.ledger import count, put, readable, room, scalar
from stages.compare.kernels.evidence import note_packet
from stages.compare.layout import conns, counters, options, ports, scalars
from stages.packets.kernels.serial import add, after, diff
from stages.packets.kernels.table import find, touch
from stages.packets.kernels.tunnels import read_packet
from stages.packets.layout import parsed, rows, tcp, transports

PRIMARY_AHEAD, SECONDARY_AHEAD = -1, -2
_PLAIN = conns.CF_SYNCED | conns.CF_P_ACK | conns.CF_S_ACK | conns.CF_P_NEXT


@hot
def take_twins(u8, w, row, now):
    """Take one packet of each side if they are twins: 2 taken, or 0.

    PRIMARY_AHEAD or SECONDARY_AHEAD: not twins, since of the connection of the primary's next packet one side's packets
    are held already: the other input has to catch up before the two can be in step again.
    """
    p, q = w[layout.INPUTS + ports.PRIMARY_IN], w[layout.INPUTS + ports.SECONDARY_IN]
    here, there = w[row + layout.ROW_HEADS + ports.PRIMARY_IN], w[row + layout.ROW_HEADS + ports.SECONDARY_IN]
    if here == readable(w, row, ports.PRIMARY_IN) or there == readable(w, row, ports.SECONDARY_IN):
        return 0
    at, bt = index(w, p, here), index(w, q, there)
    a, length = frame_at(u8, w, p, at)
    s = w[options.SCRATCH]
    if read_packet(u8, w, a, length, s, w[options.TUNNELS]) != transports.TCP:
        return 0
    c = find(w, w[options.TABLE], s)
    if c < 0:
        return 0
    if w[c + rows.PINNED] != 0:
        return _ahead(w, c)
    if not _same_length_words(u8, w, p, at, q, bt) or room(w, row, ports.OUTDEV) < be32(u8, at) + 8:
        return 0
    b = bt + a - at
    if not _same_headers(u8, w, s, a, b) or not _expected(u8, w, row, c, s, b):
        return 0
    data, size = w[s + parsed.DATA], w[s + parsed.DATA_LEN]
    if common_prefix(u8, a + data, b + data, size) < size:
        return 0
    _note_both(w, c, s, be32(u8, b + w[s + parsed.L4] + 8))
    touch(w, c, now)
    note_packet(u8, w, row, ports.PRIMARY_IN, c, a, length, now)
    note_packet(u8, w, row, ports.SECONDARY_IN, c, b, length, now)
    _release_one_of_both(u8, w, row, p, here)
    nbytes = a - at + length
    w[row + layout.ROW_HEADS + ports.PRIMARY_IN] = here + nbytes
    w[row + layout.ROW_HEADS + ports.SECONDARY_IN] = there + nbytes
    return 2


@hot
def _ahead(w, c):
    """Which side is ahead in connection ``c``: its packets are held."""
    if w[c + conns.COUNT + conns.PACKETS] != 0:
        return PRIMARY_AHEAD
    return SECONDARY_AHEAD if w[c + conns.COUNT + conns.SECONDARY] != 0 else 0


@hot
def _same_length_words(u8, w, p, at, q, bt):
    """Whether the records at byte indices ``at`` of ring ``p`` and ``bt`` of ring ``q`` begin with the same words."""
    if be32(u8, bt) != be32(u8, at) or prefix(w, q) != prefix(w, p):
        return False
    return vnet_bytes(u8, w, q, bt) == vnet_bytes(u8, w, p, at)


@hot
def _same_headers(u8, w, s, a, b):
    """Whether two frames (fields of the first at ``s``) are plain data segments that differ in no header that counts.

    What may differ: identification, TTL and checksum of IPv4, traffic class and flow label of IPv6, and of TCP what
    `_expected` looks at.
    """
    l3, l4 = w[s + parsed.L3], w[s + parsed.L4]
    flags, theirs = w[s + parsed.FLAGS], byte(u8, b + l4 + 13)
    if w[s + parsed.DATA_LEN] == 0 or (flags | theirs) & (tcp.SYN | tcp.FIN | tcp.RST) or flags & theirs & tcp.ACK == 0:
        return False
    if w[s + parsed.IPV] == 4:
        start, same = l3 + 12, l3 - 12 + 4
        if be16(u8, a + l3 + 6) != be16(u8, b + l3 + 6) or byte(u8, a + l3 + 9) != byte(u8, b + l3 + 9):
            return False
    else:
        start, same = l3 + 8, l3 - 12  # length and next header
        if byte(u8, b + l3) >> 4 != 6 or be32(u8, a + l3 + 4) >> 8 != be32(u8, b + l3 + 4) >> 8:
            return False
    return (
        common_prefix(u8, a + 12, b + 12, same) == same
        and common_prefix(u8, a + start, b + start, l4 + 8 - start) == l4 + 8 - start  # to the sequence number
        and byte(u8, a + l4 + 12) == byte(u8, b + l4 + 12)
    )


@hot
def _expected(u8, w, row, c, s, b):
    """Whether connection ``c`` waits for just this segment of both sides, and for nothing else."""
    if w[c + conns.FLAGS] & ~conns.CF_SYN_MATCHED != _PLAIN:
        return False
    if (
        w[c + conns.GENERATION] != w[scalar(row, scalars.GENERATION)]
        or w[c + conns.SECONDARY_LIFE] != w[c + conns.LIFE]
    ):
        return False
    if w[c + conns.RULE] != 0 or w[c + conns.RULES_SEEN] != w[scalar(row, scalars.RULES_SEEN)] + 1:
        return False
    # The secondary has acknowledged as much, whether ack_policy asks for that or not.
    acknowledged = be32(u8, b + w[s + parsed.L4] + 8)
    return w[s + parsed.SEQ] == w[c + conns.COMPARED] and diff(acknowledged, w[s + parsed.ACK]) >= 0


@hot
def _note_both(w, c, s, acknowledged):
    """Note in the row what the segment says of both streams; the secondary's acknowledges up to ``acknowledged``."""
    end = add(w[s + parsed.SEQ], w[s + parsed.DATA_LEN])
    put(w, c + conns.COMPARED, end)
    if after(acknowledged, w[c + conns.SECONDARY_MAX_ACK]):
        put(w, c + conns.SECONDARY_MAX_ACK, acknowledged)
    if after(w[s + parsed.ACK], w[c + conns.PRIMARY_MAX_ACK]):
        put(w, c + conns.PRIMARY_MAX_ACK, w[s + parsed.ACK])
    if after(end, w[c + conns.PRIMARY_NEXT]):
        put(w, c + conns.PRIMARY_NEXT, end)


@hot
def _release_one_of_both(u8, w, row, p, position):
    """Send the primary's record at ``position`` of ring ``p`` to outdev, and count it and its twin."""
    out, tail = w[layout.OUTPUTS + ports.OUTDEV], w[row + layout.ROW_TAILS + ports.OUTDEV]
    w[row + layout.ROW_TAILS + ports.OUTDEV] = tail + copy_record(u8, w, p, position, out, tail)
    count(w, row, ports.PRIMARY_IN, 1)
    count(w, row, ports.SECONDARY_IN, 1)
    count(w, row, layout.PORTS + ports.OUTDEV, 1)
    count(w, row, counters.RELEASED, 1)
    count(w, row, counters.MATCHED, 1)
