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
from stages.compare.layout.words import (
    C_COMPARED,
    C_COUNT,
    C_EPOCH,
    C_FLAGS,
    C_LIFE,
    C_P_MAX_ACK,
    C_P_NEXT,
    C_RULE,
    C_RULES_EPOCH,
    C_S_LIFE,
    C_S_MAX_ACK,
    CF_P_ACK,
    CF_P_NEXT,
    CF_S_ACK,
    CF_SYN_MATCHED,
    CF_SYNCED,
    MATCHED,
    O_SCRATCH,
    O_TABLE,
    OUTDEV,
    PACKETS,
    PRIMARY_IN,
    RELEASED,
    SC_GENERATION,
    SC_RULES_SEEN,
    SECONDARY,
    SECONDARY_IN,
)
from stages.packets.kernels.parse import parse
from stages.packets.kernels.serial import add, after, diff
from stages.packets.kernels.table import find, touch
from stages.packets.layout.packet import (
    ACK,
    F_ACK,
    F_DATA,
    F_DATA_LEN,
    F_FLAGS,
    F_IPV,
    F_L3,
    F_L4,
    F_SEQ,
    FIN,
    RST,
    SYN,
    TCP,
)
from stages.packets.layout.table import R_PINNED

PRIMARY_AHEAD, SECONDARY_AHEAD = -1, -2
_PLAIN = CF_SYNCED | CF_P_ACK | CF_S_ACK | CF_P_NEXT


@hot
def take_twins(u8, w, row, now):
    """Take one packet of each side if they are twins: 2 taken, or 0.

    PRIMARY_AHEAD or SECONDARY_AHEAD: not twins, since of the connection of the primary's next packet one side's packets
    are held already: the other input has to catch up before the two can be in step again.
    """
    p, q = w[layout.INPUTS + PRIMARY_IN], w[layout.INPUTS + SECONDARY_IN]
    here, there = w[row + layout.ROW_HEADS + PRIMARY_IN], w[row + layout.ROW_HEADS + SECONDARY_IN]
    if here == readable(w, row, PRIMARY_IN) or there == readable(w, row, SECONDARY_IN):
        return 0
    at, bt = index(w, p, here), index(w, q, there)
    lead = prefix(w, p)
    nbytes = be32(u8, at)
    out = w[layout.OUTPUTS + OUTDEV]
    vnet = be32(u8, at + 4) if lead == 8 else 0
    a, b = at + lead + vnet, bt + lead + vnet
    s = w[O_SCRATCH]
    if parse(u8, w, a, nbytes - vnet, s) != TCP:
        return 0
    c = find(w, w[O_TABLE], s)
    if c < 0:
        return 0
    if w[c + R_PINNED] != 0:
        if w[c + C_COUNT + PACKETS] != 0:
            return PRIMARY_AHEAD
        return SECONDARY_AHEAD if w[c + C_COUNT + SECONDARY] != 0 else 0
    if be32(u8, bt) != nbytes or prefix(w, q) != lead or room(w, row, OUTDEV) < nbytes + 8:
        return 0
    if lead == 8 and be32(u8, bt + 4) != vnet:
        return 0
    l3, l4 = w[s + F_L3], w[s + F_L4]
    flags, theirs = w[s + F_FLAGS], byte(u8, b + l4 + 13)
    length = w[s + F_DATA_LEN]
    if length == 0 or (flags | theirs) & (SYN | FIN | RST) or flags & theirs & ACK == 0:
        return 0
    # The same network header but for what may differ (identification, TTL, checksum), addresses, ports, sequence.
    if w[s + F_IPV] == 4:
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
    if w[c + C_FLAGS] & ~CF_SYN_MATCHED != _PLAIN:
        return 0
    if w[c + C_EPOCH] != w[scalar(row, SC_GENERATION)] or w[c + C_S_LIFE] != w[c + C_LIFE]:
        return 0
    if w[c + C_RULE] != 0 or w[c + C_RULES_EPOCH] != w[scalar(row, SC_RULES_SEEN)] + 1:
        return 0
    seq = w[s + F_SEQ]
    ack = be32(u8, b + l4 + 8)
    if seq != w[c + C_COMPARED] or diff(ack, w[s + F_ACK]) < 0:  # strict or not: what is unequal takes the long way
        return 0
    data = w[s + F_DATA]
    if common_prefix(u8, a + data, b + data, length) < length:
        return 0
    end = add(seq, length)
    put(w, c + C_COMPARED, end)
    if after(ack, w[c + C_S_MAX_ACK]):
        put(w, c + C_S_MAX_ACK, ack)
    if after(w[s + F_ACK], w[c + C_P_MAX_ACK]):
        put(w, c + C_P_MAX_ACK, w[s + F_ACK])
    if after(end, w[c + C_P_NEXT]):
        put(w, c + C_P_NEXT, end)
    touch(w, c, now)
    note_packet(u8, w, row, PRIMARY_IN, c, a, nbytes - vnet, now)
    note_packet(u8, w, row, SECONDARY_IN, c, b, nbytes - vnet, now)
    w[row + layout.ROW_TAILS + OUTDEV] += copy_record(u8, w, p, here, out, w[row + layout.ROW_TAILS + OUTDEV])
    w[row + layout.ROW_HEADS + PRIMARY_IN] = here + lead + nbytes
    w[row + layout.ROW_HEADS + SECONDARY_IN] = there + lead + nbytes
    count(w, row, PRIMARY_IN, 1)
    count(w, row, SECONDARY_IN, 1)
    count(w, row, layout.PORTS + OUTDEV, 1)
    count(w, row, RELEASED, 1)
    count(w, row, MATCHED, 1)
    return 2
