"""TCP in the compare: both outputs as streams of bytes by sequence number (RFC 9293), whatever the segmentation.

``C_COMPARED`` is the sequence number up to which both streams were equal.  A primary segment may leave when its end lies
at or before it, and, with ``ack_policy = "strict"``, when the secondary has acknowledged as much as it does: else the
client would be told that data is safe which would die with the primary.  SYN is matched by SYN (the secondary's has a
sequence number of its own), FIN by FIN at the same place, RST by RST.  All order is serial (RFC 1982).
"""

from __future__ import annotations

from ring.atomics import be32, common_prefix
from ring.hot import hot
from ring.kernels.frames import copied_size, copy_record, index, prefix
from ring.kernels.ledger import blocked, count, put, room, undo_left
from ring.layout import P_OUTPUTS, PORTS, R_TAILS
from stages.kernels.hold import emit_slot, fits, link, slot, store_frame, unlink
from stages.kernels.serial import add, after, diff
from stages.kernels.verdict import diverge, event_bytes, queue_work, write_event
from stages.layout.compare import (
    ACKS,
    C_COMPARED,
    C_COUNT,
    C_CURSOR,
    C_FLAGS,
    C_HEAD,
    C_P_ISN,
    C_P_MAX_ACK,
    C_P_NEXT,
    C_S_ISN,
    C_S_MAX_ACK,
    CF_DIVERGED,
    CF_P_ACK,
    CF_P_NEXT,
    CF_P_RST,
    CF_P_SYN,
    CF_PASS,
    CF_S_ACK,
    CF_S_RST,
    CF_S_SYN,
    CF_SYN_MATCHED,
    CF_SYNCED,
    CF_WORK,
    DROPPED_DIVERGED,
    MATCHED,
    O_MAX_QUEUE,
    O_STRICT,
    O_STUCK,
    OUTDEV,
    PACKETS,
    R_FLAGS,
    R_PAYLOAD,
    RELEASED,
    S_ACK,
    S_BYTES,
    S_DATA,
    S_DATA_LEN,
    S_END,
    S_FLAGS,
    S_FRAME,
    S_NEXT,
    S_SEQ,
    S_TIME,
    SECONDARY,
    SECONDARY_ACKS,
)
from stages.layout.packet import ACK, F_ACK, F_DATA, F_DATA_LEN, F_FLAGS, F_SEQ, FIN, RST, SYN
from stages.layout.table import R_CLOSED

_RESERVE = 192  # undo entries that one step may need
_NOT_NOW = CF_DIVERGED | CF_P_SYN | CF_S_SYN  # while one of these is set nothing is compared


@hot
def release_record(u8, w, row, r, position):
    """Send the record at ``position`` of ring ``r`` to outdev; False where there is no room."""
    out = w[P_OUTPUTS + OUTDEV]
    if room(w, row, OUTDEV) < copied_size(u8, w, r, position, out):
        blocked(w, OUTDEV)
        return False
    w[row + R_TAILS + OUTDEV] += copy_record(u8, w, r, position, out, w[row + R_TAILS + OUTDEV])
    count(w, row, PORTS + OUTDEV, 1)
    return True


@hot
def acknowledged(w, c, flags, ack):
    """Whether the secondary has acknowledged as much as a primary segment with this ACK."""
    if w[O_STRICT] == 0 or flags & ACK == 0:
        return True
    return w[c + C_FLAGS] & CF_S_ACK != 0 and diff(w[c + C_S_MAX_ACK], ack) >= 0


@hot
def tcp_primary(u8, w, row, c, r, position, s, now):
    """Take the primary's segment at ``position`` (fields at ``s``); False where it has to wait in the ring."""
    flags = w[s + F_FLAGS]
    seq = w[s + F_SEQ]
    end = add(seq, w[s + F_DATA_LEN] + (flags & FIN) + (flags >> 1 & 1))
    if flags & SYN and not _primary_syn(w, row, c, seq):
        return False
    state = w[c + C_FLAGS]
    if flags & ACK and (state & CF_P_ACK == 0 or after(w[s + F_ACK], w[c + C_P_MAX_ACK])):
        put(w, c + C_P_MAX_ACK, w[s + F_ACK])
        put(w, c + C_FLAGS, state | CF_P_ACK)
        state |= CF_P_ACK
    if state & CF_P_NEXT == 0 or after(end, w[c + C_P_NEXT]):
        put(w, c + C_P_NEXT, end)
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_P_NEXT)
    if state & CF_SYNCED == 0:
        # Picked up in the middle: comparison starts where the primary is.
        put(w, c + C_COMPARED, seq)
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_SYNCED)
    if flags & RST:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_P_RST)
    state = w[c + C_FLAGS]
    compared = w[c + C_COMPARED]
    if state & CF_PASS:
        free, which = True, ACKS
    elif flags & RST:
        free, which = state & CF_S_RST != 0, PACKETS
    elif flags & SYN:
        free, which = state & CF_SYN_MATCHED != 0 and diff(end, compared) <= 0, PACKETS
    else:
        # Without data, or sent before: nothing to compare, only the acknowledgement counts.
        free = end == seq or diff(end, compared) <= 0
        which = ACKS if free else PACKETS
    if not free and which == PACKETS and flags & (SYN | FIN | RST) == 0:
        free = _equal_waiting(u8, w, row, c, r, position, s, seq, end)
    nothing_before = which == PACKETS or w[c + C_HEAD + ACKS] == 0
    if free and nothing_before and (state & CF_PASS or acknowledged(w, c, flags, w[s + F_ACK])):
        if release_record(u8, w, row, r, position):
            count(w, row, RELEASED, 1)
            _note_reset(w, c)
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
    w[x + S_END] = end
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
def _primary_syn(w, row, c, seq):
    """A SYN of the primary; False while packets of the connection's former life have to leave first."""
    state = w[c + C_FLAGS]
    if state & (CF_P_SYN | CF_SYN_MATCHED) and w[c + C_P_ISN] == seq:
        return True  # sent again
    if w[c + C_HEAD + PACKETS] != 0 or w[c + C_HEAD + ACKS] != 0:
        put(w, c + C_FLAGS, state | CF_PASS)
        queue_work(w, row, c)
        return False
    kept = state & (CF_S_SYN | CF_WORK)
    if state & CF_S_SYN:
        kept |= CF_SYN_MATCHED | state & CF_S_ACK
        kept &= ~CF_S_SYN
    else:
        kept |= CF_P_SYN
    put(w, c + C_FLAGS, kept | CF_SYNCED)
    put(w, c + C_P_ISN, seq)
    put(w, c + C_COMPARED, add(seq, 1))
    put(w, c + C_CURSOR, 0)
    put(w, c + R_CLOSED, 0)
    return True


@hot
def _equal_waiting(u8, w, row, c, r, position, s, seq, end):
    """The common case without a copy: the secondary's equal segment is the next one, and nothing else waits."""
    n = w[c + C_HEAD + SECONDARY] - 1
    if n < 0 or w[c + C_HEAD + PACKETS] != 0 or seq != w[c + C_COMPARED] or w[c + C_FLAGS] & _NOT_NOW:
        return False
    x = slot(w, n)
    if w[x + S_SEQ] != seq or w[x + S_END] != end or w[x + S_FLAGS] & (SYN | FIN):
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
    seq = w[s + F_SEQ]
    end = add(seq, w[s + F_DATA_LEN] + (flags & FIN))
    news = False
    if flags & ACK and (flags & SYN or state & CF_S_ACK == 0 or after(w[s + F_ACK], w[c + C_S_MAX_ACK])):
        put(w, c + C_S_MAX_ACK, w[s + F_ACK])
        put(w, c + C_FLAGS, state | CF_S_ACK)
        news = True
    if flags & (SYN | RST):
        _secondary_control(w, c, flags, seq)
        count(w, row, MATCHED, 1)
        service(u8, w, row, c, now)
        _note_reset(w, c)
        return True
    state = w[c + C_FLAGS]
    if end == seq:
        count(w, row, SECONDARY_ACKS, 1)
    elif state & CF_PASS and state & CF_S_SYN == 0:
        count(w, row, DROPPED_DIVERGED, 1)
    elif state & CF_SYNCED and state & CF_S_SYN == 0 and diff(end, w[c + C_COMPARED]) <= 0:
        count(w, row, MATCHED, 1)  # sent again
    elif _equal_held(u8, w, row, c, r, position, s, seq, end, flags):
        count(w, row, MATCHED, 1)
        news = True
    else:
        if w[c + C_COUNT + SECONDARY] >= w[O_MAX_QUEUE]:
            w[O_STUCK] |= 2
            return False
        n = store_frame(u8, w, row, r, position, 1, s, now)
        if n < 0:
            w[O_STUCK] |= 2
            return False
        w[slot(w, n) + S_END] = end
        link(w, row, c, SECONDARY, n, True)
        news = True
    if news:
        service(u8, w, row, c, now)
    return True


@hot
def _secondary_control(w, c, flags, seq):
    state = w[c + C_FLAGS]
    if flags & RST:
        put(w, c + C_FLAGS, state | CF_S_RST)
    elif state & CF_SYN_MATCHED == 0 or w[c + C_S_ISN] != seq:
        put(w, c + C_S_ISN, seq)
        if state & CF_P_SYN:
            put(w, c + C_FLAGS, state & ~CF_P_SYN | CF_SYN_MATCHED)
        else:
            put(w, c + C_FLAGS, state | CF_S_SYN)


@hot
def _equal_held(u8, w, row, c, r, position, s, seq, end, flags):
    """The common case without a copy: the primary's equal segment is the next one to be compared."""
    n = w[c + C_CURSOR] - 1
    if n < 0 or w[c + C_HEAD + SECONDARY] != 0 or seq != w[c + C_COMPARED] or flags & FIN:
        return False
    x = slot(w, n)
    if w[x + S_SEQ] != seq or w[x + S_END] != end or w[x + S_FLAGS] & (SYN | FIN | RST) or w[c + C_FLAGS] & _NOT_NOW:
        return False
    at = index(w, r, position)
    mine = at + prefix(w, r) + _vnet(u8, w, r, at) + w[s + F_DATA]
    length = w[s + F_DATA_LEN]
    if common_prefix(u8, mine, w[x + S_BYTES] + w[x + S_DATA], length) < length:
        return False
    put(w, c + C_COMPARED, end)
    put(w, c + C_CURSOR, w[x + S_NEXT])
    return True


@hot
def service(u8, w, row, c, now):
    """Compare and release as far as a connection can go; True when nothing more can be done for now."""
    while undo_left(w) > _RESERVE:
        if w[c + C_FLAGS] & CF_PASS:
            done = _pass_one(u8, w, row, c)
        else:
            done = _release_one(u8, w, row, c, PACKETS)
            if done == 0:
                done = _release_one(u8, w, row, c, ACKS)
            if done == 0:
                done = _compare_step(u8, w, row, c, now)
        if done == 0:
            return True
        if done < 0:  # outdev is full
            blocked(w, OUTDEV)
            break
    queue_work(w, row, c)
    return False


@hot
def _note_reset(w, c):
    if w[c + C_FLAGS] & CF_P_RST and w[c + C_FLAGS] & CF_S_RST and w[c + R_CLOSED] == 0:
        put(w, c + R_CLOSED, 1)


@hot
def _release_one(u8, w, row, c, which):
    """Release the first packet of a list if it may leave: 1 released, 0 it may not (or there is none), -1 no room."""
    n = w[c + C_HEAD + which] - 1
    if n < 0:
        return 0
    x = slot(w, n)
    flags, state = w[x + S_FLAGS], w[c + C_FLAGS]
    if flags & RST:
        if state & CF_S_RST == 0:
            return 0
    elif which == PACKETS and diff(w[x + S_END], w[c + C_COMPARED]) > 0:
        return 0
    if flags & SYN and state & CF_SYN_MATCHED == 0:
        return 0
    if not acknowledged(w, c, flags, w[x + S_ACK]):
        return 0
    if not fits(w, row, w[x + S_FRAME]):
        return -1
    emit_slot(u8, w, row, n)
    unlink(w, row, n)
    count(w, row, RELEASED, 1)
    _note_reset(w, c)
    return 1


@hot
def _pass_one(u8, w, row, c):
    """One packet of a connection that passes: the primary's oldest leaves, then the secondary's are dropped."""
    p, a = w[c + C_HEAD + PACKETS] - 1, w[c + C_HEAD + ACKS] - 1
    n = p
    if p < 0 or (a >= 0 and w[slot(w, a) + S_TIME] < w[slot(w, p) + S_TIME]):
        n = a
    if n >= 0:
        if not fits(w, row, w[slot(w, n) + S_FRAME]):
            return -1
        emit_slot(u8, w, row, n)
        unlink(w, row, n)
        count(w, row, RELEASED, 1)
        return 1
    n = w[c + C_HEAD + SECONDARY] - 1
    if n >= 0 and w[c + C_FLAGS] & CF_S_SYN == 0:
        unlink(w, row, n)
        count(w, row, DROPPED_DIVERGED, 1)
        return 1
    return 0


@hot
def _compare_step(u8, w, row, c, now):
    """Compare what both sides have at C_COMPARED: 1 when that went on, 0 when one side has nothing there."""
    if w[c + C_FLAGS] & (_NOT_NOW | CF_SYNCED) != CF_SYNCED:
        return 0
    compared = w[c + C_COMPARED]
    n = w[c + C_HEAD + SECONDARY] - 1
    if n >= 0 and diff(w[slot(w, n) + S_END], compared) <= 0:
        unlink(w, row, n)
        count(w, row, MATCHED, 1)
        return 1
    p = w[c + C_CURSOR] - 1
    if p < 0 or n < 0:
        return 0
    x, y = slot(w, p), slot(w, n)
    if diff(w[x + S_END], compared) <= 0:
        put(w, c + C_CURSOR, w[x + S_NEXT])
        return 1
    first = add(w[x + S_SEQ], w[x + S_FLAGS] >> 1 & 1)
    mine, theirs = diff(compared, first), diff(compared, w[y + S_SEQ])  # how far into each segment
    if mine < 0 or theirs < 0 or w[x + S_FLAGS] & RST:
        return 0
    left, right = w[x + S_DATA_LEN] - mine, w[y + S_DATA_LEN] - theirs
    length = min(left, right)
    a, b = w[x + S_BYTES] + w[x + S_DATA], w[y + S_BYTES] + w[y + S_DATA]
    if length > 0:
        same = common_prefix(u8, a + mine, b + theirs, length)
        if same > 0:
            put(w, c + C_COMPARED, add(compared, same))
        if same < length:
            e = write_event(u8, w, row, c, R_PAYLOAD, diff(add(compared, same), add(w[c + C_P_ISN], 1)), now)
            # Show both sides from a common origin: the first byte that both segments have.
            back = min(mine, theirs)
            event_bytes(u8, w, e, a + mine - back, left + back, b + theirs - back, right + back, back + same)
            diverge(w, row, c, R_PAYLOAD, now)
        return 1
    if left == 0 and right == 0:  # both end here with FIN
        put(w, c + C_COMPARED, add(compared, 1))
        put(w, c + R_CLOSED, 1)
        return 1
    e = write_event(u8, w, row, c, R_FLAGS, diff(compared, add(w[c + C_P_ISN], 1)), now)
    event_bytes(u8, w, e, a + mine, left, b + theirs, right, 0)
    diverge(w, row, c, R_FLAGS, now)
    return 1
