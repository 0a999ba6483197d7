"""TCP in the compare: both outputs as streams of bytes by sequence number (RFC 9293), whatever the segmentation.

``C_COMPARED`` is the sequence number up to which both streams were equal.  A primary segment may leave when its end is
at or before it, and, with ``ack_policy = "strict"``, when the secondary has acknowledged as much as it does: else the
client would be told that data is safe which would die with the primary.  SYN is matched by SYN (the secondary's has a
sequence number of its own), FIN by FIN at the same place, RST by RST.  All order is serial (RFC 1982).  Packets are
taken from the rings here; `service` goes on with what is held.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, common_prefix
from ring.hot import hot
from ring.kernels.frames import copied_size, copy_record, index, prefix
from ring.kernels.ledger import blocked, count, put, room
from stages.compare.kernels.rules import restart
from stages.compare.kernels.slots import link, slot, store_frame, unlink
from stages.compare.kernels.syn import primary_syn, secondary_syn, secondary_syn_known
from stages.compare.kernels.tcp_compare import (
    NOT_NOW,
    RESETS,
    acknowledged,
    drop_counts,
    forget_resets,
    has_reset,
    holds_reset,
    note_reset,
    release_counts,
    service,
)
from stages.compare.kernels.timestamps import note_overtaking
from stages.compare.layout.words import (
    ACKS,
    C_COMPARED,
    C_COUNT,
    C_CURSOR,
    C_FLAGS,
    C_HEAD,
    C_LIFE,
    C_P_ISN,
    C_P_MAX_ACK,
    C_P_NEXT,
    C_RULE,
    C_S_LIFE,
    C_S_MAX_ACK,
    C_TAIL,
    CF_P_ACK,
    CF_P_NEXT,
    CF_P_RST,
    CF_P_SYN,
    CF_PASS,
    CF_RULE,
    CF_S_ACK,
    CF_S_RST,
    CF_SYN_MATCHED,
    CF_SYNCED,
    DROPPED_UNCOMPARED,
    MATCHED,
    O_MAX_QUEUE,
    O_STUCK,
    OUTDEV,
    PACKETS,
    PASSES,
    S_BYTES,
    S_DATA,
    S_END,
    S_FLAGS,
    S_LIFE,
    S_NEXT,
    S_PREV,
    S_SEQ,
    SECONDARY,
    SECONDARY_ACKS,
)
from stages.packets.kernels.serial import add, after, diff
from stages.packets.layout.packet import ACK, F_ACK, F_DATA, F_DATA_LEN, F_FLAGS, F_SEQ, FIN, RST, SYN


@hot
def release_record(u8, w, row, r, position):
    """Send the record at ``position`` of ring ``r`` to outdev; False where there is no room."""
    out = w[layout.OUTPUTS + OUTDEV]
    if room(w, row, OUTDEV) < copied_size(u8, w, r, position, out):
        blocked(w, OUTDEV)
        return False
    w[row + layout.ROW_TAILS + OUTDEV] += copy_record(u8, w, r, position, out, w[row + layout.ROW_TAILS + OUTDEV])
    count(w, row, layout.PORTS + OUTDEV, 1)
    return True


@hot
def note_primary(w, row, c, s):
    """Note what the primary's segment (fields at ``s``) says of its stream; False where it has to wait in the ring."""
    flags = w[s + F_FLAGS]
    seq = w[s + F_SEQ]
    end = add(seq, w[s + F_DATA_LEN] + (flags & FIN) + (flags >> 1 & 1))
    if flags & (SYN | RST) == SYN and not primary_syn(w, row, c, seq, flags):
        return False
    before = w[c + C_FLAGS]
    state = before
    if flags & ACK and (state & CF_P_ACK == 0 or after(w[s + F_ACK], w[c + C_P_MAX_ACK])):
        put(w, c + C_P_MAX_ACK, w[s + F_ACK])
        state |= CF_P_ACK
    if flags & RST:
        state |= CF_P_RST  # its sequence number may be anything: it says nothing of the stream
    else:
        if state & CF_P_NEXT == 0 or after(end, w[c + C_P_NEXT]):
            put(w, c + C_P_NEXT, end)
            state |= CF_P_NEXT
            if state & RESETS == RESETS and not holds_reset(w, c):
                forget_resets(w, c)
                state &= ~RESETS
        if state & CF_SYNCED == 0 and end != seq:
            # Picked up in the middle: comparison starts where the primary is (a keepalive may be one byte behind that).
            put(w, c + C_COMPARED, seq)
            state |= CF_SYNCED
            restart(w, c)
    if state != before:
        put(w, c + C_FLAGS, state)
    return True


@hot
def tcp_primary(u8, w, row, c, r, position, s, now):
    """Take the primary's segment at ``position`` (fields at ``s``); False where it has to wait in the ring."""
    if not note_primary(w, row, c, s):
        return False
    flags = w[s + F_FLAGS]
    seq = w[s + F_SEQ]
    end = add(seq, w[s + F_DATA_LEN] + (flags & FIN) + (flags >> 1 & 1))
    state = w[c + C_FLAGS]
    compared = w[c + C_COMPARED]
    if state & PASSES:
        free, which = True, ACKS
    elif flags & RST:
        free, which = has_reset(w, c), ACKS
    elif flags & SYN:
        free, which = state & CF_SYN_MATCHED != 0 and diff(end, compared) <= 0, PACKETS
    else:
        # Without data, or sent before: nothing to compare, only the acknowledgement counts.
        free = end == seq or diff(end, compared) <= 0
        which = ACKS if free else PACKETS
    if not free and which == PACKETS and flags & (SYN | FIN | RST) == 0:
        free = _equal_waiting(u8, w, row, c, r, position, s, seq, end)
    nothing_before = which == PACKETS or w[c + C_HEAD + ACKS] == 0
    if flags & RST or state & PASSES:  # what the primary sent before it leaves before it
        nothing_before = nothing_before and w[c + C_HEAD + PACKETS] == 0
    if free and nothing_before and (state & PASSES or flags & RST or acknowledged(w, c, flags, w[s + F_ACK])):
        if release_record(u8, w, row, r, position):
            if which == ACKS and w[c + C_HEAD + PACKETS] != 0:
                at = index(w, r, position)
                note_overtaking(u8, w, c, at + prefix(w, r) + _vnet(u8, w, r, at), s)
            release_counts(w, row, c, 1)
            note_reset(w, c)
            if (which == PACKETS or flags & RST) and w[c + C_HEAD + SECONDARY] != 0:
                service(u8, w, row, c, now)  # its equal waits, or the secondary has sent the same bytes twice
            return True
        if which == ACKS:
            return False
    return _hold_primary(u8, w, row, c, r, position, s, end, which, now)


@hot
def _hold_primary(u8, w, row, c, r, position, s, end, which, now):
    if w[c + C_COUNT + PACKETS] + w[c + C_COUNT + ACKS] >= w[O_MAX_QUEUE]:
        w[O_STUCK] |= 1
        return False
    n = store_frame(u8, w, row, r, position, 0, s, now)
    if n < 0:
        w[O_STUCK] |= 1
        return False
    x = slot(w, n)
    w[x + S_END] = w[c + C_P_NEXT] if w[s + F_FLAGS] & RST else end  # where a reset stands in the stream
    link(w, row, c, which, n, which == PACKETS)
    if which == PACKETS and diff(end, w[c + C_COMPARED]) > 0:
        if w[x + S_NEXT] != 0:
            put(w, c + C_CURSOR, _first_uncompared(w, c))
        elif w[c + C_CURSOR] == 0:
            put(w, c + C_CURSOR, n + 1)
    service(u8, w, row, c, now)
    return True


@hot
def _first_uncompared(w, c):
    n = w[c + C_HEAD + PACKETS]
    while n != 0 and diff(w[slot(w, n - 1) + S_END], w[c + C_COMPARED]) <= 0:
        n = w[slot(w, n - 1) + S_NEXT]
    return n


@hot
def _equal_waiting(u8, w, row, c, r, position, s, seq, end):
    """The common case without a copy: the secondary's equal segment is the next one, and nothing else waits."""
    n = w[c + C_HEAD + SECONDARY] - 1
    if n < 0 or w[c + C_HEAD + PACKETS] != 0 or seq != w[c + C_COMPARED] or w[c + C_FLAGS] & NOT_NOW:
        return False
    if w[c + C_RULE] != 0:  # a mask has to read every byte
        return False
    x = slot(w, n)
    if w[x + S_SEQ] != seq or w[x + S_END] != end or w[x + S_FLAGS] & (SYN | FIN) or w[x + S_LIFE] != w[c + C_LIFE]:
        return False
    at = index(w, r, position)
    mine = at + prefix(w, r) + _vnet(u8, w, r, at) + w[s + F_DATA]
    length = w[s + F_DATA_LEN]
    if common_prefix(u8, mine, w[x + S_BYTES] + w[x + S_DATA], length) < length:
        return False
    put(w, c + C_COMPARED, end)
    unlink(w, row, n)
    count(w, row, MATCHED, 1)
    return True


@hot
def _vnet(u8, w, r, at):
    return be32(u8, at + 4) if prefix(w, r) == 8 else 0


@hot
def tcp_secondary(u8, w, row, c, r, position, s, now):
    """Take the secondary's segment at ``position`` (fields at ``s``); False where it has to wait in the ring."""
    flags, state = w[s + F_FLAGS], w[c + C_FLAGS]
    if state & CF_RULE:
        drop_counts(w, row, c, 1)
        return True
    seq = w[s + F_SEQ]
    end = add(seq, w[s + F_DATA_LEN] + (flags & FIN))
    begins = flags & (SYN | RST) == SYN and not secondary_syn_known(w, c, seq)
    # What the primary has not said either has to wait for it: a SYN, and data in one (RFC 7413); a RST.
    waits = begins and (state & CF_P_SYN == 0 or w[s + F_DATA_LEN] > 0)
    if flags & RST:
        known = state & (CF_P_RST | CF_S_RST | CF_PASS)
        waits = known == 0 or (known == CF_S_RST and _resets_farther(w, c))
    n = -1
    if waits:
        n = _store_secondary(u8, w, row, c, r, position, s, now)
        if n < 0:
            return False
    news = False
    if flags & ACK and (begins or state & CF_S_ACK == 0 or after(w[s + F_ACK], w[c + C_S_MAX_ACK])):
        put(w, c + C_S_MAX_ACK, w[s + F_ACK])
        put(w, c + C_FLAGS, state | CF_S_ACK)
        news = True
    if flags & (SYN | RST):
        if begins:
            secondary_syn(w, c, seq)
            if flags & ACK == 0:  # it has acknowledged nothing of this life
                put(w, c + C_FLAGS, w[c + C_FLAGS] & ~CF_S_ACK)
        elif flags & RST:
            put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_S_RST)
        if n >= 0 and flags & RST:
            _link_secondary(w, row, c, n, seq, _secondary_end(w, c), False)
        elif n >= 0:
            # Where it stands is known once the primary's SYN is.
            first = add(w[c + C_P_ISN], 1) if w[c + C_FLAGS] & CF_SYN_MATCHED else 0
            _link_secondary(w, row, c, n, first, add(first, w[s + F_DATA_LEN]), False)
        elif flags & RST and state & CF_PASS:
            drop_counts(w, row, c, 1)
        else:
            count(w, row, MATCHED, 1)
        service(u8, w, row, c, now)
        note_reset(w, c)
        return True
    state = w[c + C_FLAGS]
    same_life = w[c + C_S_LIFE] == w[c + C_LIFE]
    if end == seq:
        count(w, row, SECONDARY_ACKS, 1)
    elif w[c + C_S_LIFE] < w[c + C_LIFE]:
        count(w, row, DROPPED_UNCOMPARED, 1)  # of a life that the primary has left
    elif state & CF_PASS and same_life:
        drop_counts(w, row, c, 1)
    elif state & CF_SYNCED and same_life and diff(end, w[c + C_COMPARED]) <= 0:
        count(w, row, MATCHED, 1)  # sent again
    elif same_life and _equal_held(u8, w, row, c, r, position, s, seq, end, flags):
        count(w, row, MATCHED, 1)
        news = True
    else:
        n = _store_secondary(u8, w, row, c, r, position, s, now)
        if n < 0:
            if news:  # the segment waits, its acknowledgement does not
                service(u8, w, row, c, now)
            return False
        _link_secondary(w, row, c, n, seq, end, True)
        news = True
    if news:
        service(u8, w, row, c, now)
    return True


@hot
def _secondary_end(w, c):
    """Where the secondary's stream ends so far."""
    n = w[c + C_TAIL + SECONDARY]
    while n != 0 and w[slot(w, n - 1) + S_FLAGS] & RST:
        n = w[slot(w, n - 1) + S_PREV]
    compared = w[c + C_COMPARED]
    if n == 0 or w[slot(w, n - 1) + S_LIFE] != w[c + C_S_LIFE] or diff(w[slot(w, n - 1) + S_END], compared) <= 0:
        return compared
    return w[slot(w, n - 1) + S_END]


@hot
def _resets_farther(w, c):
    """Whether the secondary has gone on since its reset that is held: then another one is not the same again."""
    n = w[c + C_TAIL + SECONDARY] - 1
    if n < 0 or w[slot(w, n) + S_FLAGS] & RST == 0 or w[slot(w, n) + S_LIFE] != w[c + C_S_LIFE]:
        return False
    return diff(_secondary_end(w, c), w[slot(w, n) + S_END]) > 0


@hot
def _store_secondary(u8, w, row, c, r, position, s, now):
    n = -1
    if w[c + C_COUNT + SECONDARY] < w[O_MAX_QUEUE]:
        n = store_frame(u8, w, row, r, position, 1, s, now)
    if n < 0:
        w[O_STUCK] |= 2
    return n


@hot
def _link_secondary(w, row, c, n, seq, end, ordered):
    x = slot(w, n)
    w[x + S_SEQ] = seq
    w[x + S_END] = end
    w[x + S_LIFE] = w[c + C_S_LIFE]
    link(w, row, c, SECONDARY, n, ordered)


@hot
def _equal_held(u8, w, row, c, r, position, s, seq, end, flags):
    """The common case without a copy: the primary's equal segment is the next one to be compared."""
    n = w[c + C_CURSOR] - 1
    if n < 0 or w[c + C_HEAD + SECONDARY] != 0 or seq != w[c + C_COMPARED] or flags & FIN or w[c + C_RULE] != 0:
        return False
    x = slot(w, n)
    if w[x + S_SEQ] != seq or w[x + S_END] != end or w[x + S_FLAGS] & (SYN | FIN | RST) or w[c + C_FLAGS] & NOT_NOW:
        return False
    at = index(w, r, position)
    mine = at + prefix(w, r) + _vnet(u8, w, r, at) + w[s + F_DATA]
    length = w[s + F_DATA_LEN]
    if common_prefix(u8, mine, w[x + S_BYTES] + w[x + S_DATA], length) < length:
        return False
    put(w, c + C_COMPARED, end)
    put(w, c + C_CURSOR, w[x + S_NEXT])
    return True
