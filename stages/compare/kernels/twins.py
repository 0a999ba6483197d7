"""The compare's short way: both inputs' next packets are the same TCP segment, and nothing of the connection is held.

Two replicas in step send the same segments in the same order, so this is most of the traffic.  The two frames are
compared where they lie in their rings and the primary's is copied to outdev: no slot, no list, one table look-up.
Whatever is not plain (SYN, FIN, RST, another length, another order, a difference) is left to the long way.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, byte, common_prefix
from ring.hot import hot
from ring.kernels.frames import copy_record, index, prefix
from ring.kernels.ledger import count, put, readable, room, scalar
from stages.compare.kernels.evidence import note_packet
from stages.compare.layout import conns, counters, options, ports, scalars
from stages.packets.kernels.parse import parse
from stages.packets.kernels.serial import add, after, diff
from stages.packets.kernels.table import find, touch
from stages.packets.layout import parsed, rows, tcp, verdicts

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
    lead = prefix(w, p)
    nbytes = be32(u8, at)
    out = w[layout.OUTPUTS + ports.OUTDEV]
    vnet = be32(u8, at + 4) if lead == 8 else 0
    a, b = at + lead + vnet, bt + lead + vnet
    s = w[options.SCRATCH]
    if parse(u8, w, a, nbytes - vnet, s) != verdicts.TCP:
        return 0
    c = find(w, w[options.TABLE], s)
    if c < 0:
        return 0
    if w[c + rows.PINNED] != 0:
        if w[c + conns.COUNT + conns.PACKETS] != 0:
            return PRIMARY_AHEAD
        return SECONDARY_AHEAD if w[c + conns.COUNT + conns.SECONDARY] != 0 else 0
    if be32(u8, bt) != nbytes or prefix(w, q) != lead or room(w, row, ports.OUTDEV) < nbytes + 8:
        return 0
    if lead == 8 and be32(u8, bt + 4) != vnet:
        return 0
    l3, l4 = w[s + parsed.L3], w[s + parsed.L4]
    flags, theirs = w[s + parsed.FLAGS], byte(u8, b + l4 + 13)
    length = w[s + parsed.DATA_LEN]
    if length == 0 or (flags | theirs) & (tcp.SYN | tcp.FIN | tcp.RST) or flags & theirs & tcp.ACK == 0:
        return 0
    # The same network header but for what may differ (identification, TTL, checksum), addresses, ports, sequence.
    if w[s + parsed.IPV] == 4:
        start, same = l3 + 12, l3 - 12 + 4
        if be16(u8, a + l3 + 6) != be16(u8, b + l3 + 6) or byte(u8, a + l3 + 9) != byte(u8, b + l3 + 9):
            return 0
    else:
        start, same = l3 + 8, l3 - 12  # length and next header; traffic class and flow label may differ
        if byte(u8, b + l3) >> 4 != 6 or be32(u8, a + l3 + 4) >> 8 != be32(u8, b + l3 + 4) >> 8:
            return 0
    if (
        common_prefix(u8, a + 12, b + 12, same) < same
        or common_prefix(u8, a + start, b + start, l4 + 8 - start) < l4 + 8 - start
        or byte(u8, a + l4 + 12) != byte(u8, b + l4 + 12)
    ):
        return 0
    if w[c + conns.FLAGS] & ~conns.CF_SYN_MATCHED != _PLAIN:
        return 0
    if (
        w[c + conns.GENERATION] != w[scalar(row, scalars.GENERATION)]
        or w[c + conns.SECONDARY_LIFE] != w[c + conns.LIFE]
    ):
        return 0
    if w[c + conns.RULE] != 0 or w[c + conns.RULES_SEEN] != w[scalar(row, scalars.RULES_SEEN)] + 1:
        return 0
    seq = w[s + parsed.SEQ]
    ack = be32(u8, b + l4 + 8)
    # Strict or not: what is unequal takes the long way.
    if seq != w[c + conns.COMPARED] or diff(ack, w[s + parsed.ACK]) < 0:
        return 0
    data = w[s + parsed.DATA]
    if common_prefix(u8, a + data, b + data, length) < length:
        return 0
    end = add(seq, length)
    put(w, c + conns.COMPARED, end)
    if after(ack, w[c + conns.SECONDARY_MAX_ACK]):
        put(w, c + conns.SECONDARY_MAX_ACK, ack)
    if after(w[s + parsed.ACK], w[c + conns.PRIMARY_MAX_ACK]):
        put(w, c + conns.PRIMARY_MAX_ACK, w[s + parsed.ACK])
    if after(end, w[c + conns.PRIMARY_NEXT]):
        put(w, c + conns.PRIMARY_NEXT, end)
    touch(w, c, now)
    note_packet(u8, w, row, ports.PRIMARY_IN, c, a, nbytes - vnet, now)
    note_packet(u8, w, row, ports.SECONDARY_IN, c, b, nbytes - vnet, now)
    w[row + layout.ROW_TAILS + ports.OUTDEV] += copy_record(
        u8, w, p, here, out, w[row + layout.ROW_TAILS + ports.OUTDEV]
    )
    w[row + layout.ROW_HEADS + ports.PRIMARY_IN] = here + lead + nbytes
    w[row + layout.ROW_HEADS + ports.SECONDARY_IN] = there + lead + nbytes
    count(w, row, ports.PRIMARY_IN, 1)
    count(w, row, ports.SECONDARY_IN, 1)
    count(w, row, layout.PORTS + ports.OUTDEV, 1)
    count(w, row, counters.RELEASED, 1)
    count(w, row, counters.MATCHED, 1)
    return 2
