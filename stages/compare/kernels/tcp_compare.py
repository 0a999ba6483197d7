"""A TCP connection goes as far as it can: its two streams are compared, and what may leave leaves."""

from __future__ import annotations

from ring.atomics import common_prefix
from ring.hot import hot
from ring.kernels.ledger import blocked, count, put, undo_left
from stages.compare.kernels.divergence import diverge
from stages.compare.kernels.events import event_bytes, write_event
from stages.compare.kernels.evidence import keep_packets
from stages.compare.kernels.rules import agree_stream, hit, masks
from stages.compare.kernels.slots import fits_slot, slot, unlink
from stages.compare.kernels.timestamps import emit_in_time, forget_overtaking, note_held_overtaking
from stages.compare.kernels.work_list import queue_work
from stages.compare.layout import conns, counters, options, ports, reasons, slots
from stages.packets.kernels.serial import add, diff
from stages.packets.layout import rows, tcp, transports

_RESERVE = 192  # undo entries that one step may need
RESETS = conns.CF_P_RST | conns.CF_S_RST
NOT_NOW = conns.CF_DIVERGED | conns.CF_P_SYN  # while one of these is set nothing is compared


@hot
def acknowledged(w, c, flags, ack):
    """Whether the secondary has acknowledged as much as a primary segment with this ACK."""
    if w[options.STRICT] == 0 or flags & tcp.ACK == 0 or w[c + conns.SECONDARY_LIFE] > w[c + conns.LIFE]:
        return True  # also where the secondary has done with this life
    # While the primary's SYN waits, what the secondary has acknowledged is of another life.
    return (
        w[c + conns.FLAGS] & (conns.CF_S_ACK | conns.CF_P_SYN) == conns.CF_S_ACK
        and diff(w[c + conns.SECONDARY_MAX_ACK], ack) >= 0
    )


@hot
def has_reset(w, c):
    """Whether the secondary has reset the connection here: it holds no byte before the reset that the primary lacks."""
    n = w[c + conns.HEAD + conns.SECONDARY] - 1
    if n >= 0 and w[slot(w, n) + slots.LIFE] == w[c + conns.LIFE]:
        if w[slot(w, n) + slots.FLAGS] & tcp.RST:
            return True  # whatever it has begun since then
        if diff(w[slot(w, n) + slots.END], w[c + conns.COMPARED]) > 0:
            return False
    # While the primary's SYN waits: of another life.
    return w[c + conns.FLAGS] & (conns.CF_S_RST | conns.CF_P_SYN) == conns.CF_S_RST


@hot
def _resets_behind(w, c):
    """Whether the primary's reset is held, and the secondary has reset the connection, too.

    It will acknowledge no more, and what the primary's segments before the reset acknowledge dies with both.
    """
    n = w[c + conns.TAIL + conns.ACKS] - 1
    return n >= 0 and w[slot(w, n) + slots.FLAGS] & tcp.RST != 0 and has_reset(w, c)


@hot
def release_counts(w, row, c, frames):
    """Count primary frames that leave: compared, or passed by a rule."""
    if w[c + conns.FLAGS] & conns.CF_RULE:
        count(w, row, counters.RELEASED_BY_RULE, frames)
        hit(w, c, frames)
    else:
        count(w, row, counters.RELEASED, frames)


@hot
def drop_counts(w, row, c, frames):
    """Count secondary frames of a connection that passes."""
    if w[c + conns.FLAGS] & conns.CF_RULE:
        count(w, row, counters.DROPPED_BY_RULE, frames)
        hit(w, c, frames)
    else:
        count(w, row, counters.DROPPED_DIVERGED, frames)


@hot
def service(u8, w, row, c, now):
    """Compare and release as far as a connection can go; True when nothing more can be done for now."""
    while undo_left(w) > _RESERVE:
        if w[c + conns.FLAGS] & conns.PASSES:
            done = _pass_one(u8, w, row, c)
        elif w[c + conns.TRANSPORT] != transports.TCP:
            return True  # on the work list for a rule that is no more
        else:
            done = _release_one(u8, w, row, c, conns.PACKETS)
            if done == 0:
                done = _release_one(u8, w, row, c, conns.ACKS)
            if done == 0:
                done = _compare_step(u8, w, row, c, now)
        if done == 0:
            return True
        if done < 0:  # outdev is full
            blocked(w, ports.OUTDEV)
            break
    queue_work(w, row, c)
    return False


@hot
def note_reset(w, c):
    """Once both have reset the connection it is the first to be evicted."""
    if w[c + conns.FLAGS] & RESETS == RESETS and w[c + rows.CLOSED] == 0:
        put(w, c + rows.CLOSED, 1)


@hot
def holds_reset(w, c):
    """Whether a reset of the primary is held."""
    n = w[c + conns.HEAD + conns.ACKS]
    while n != 0:
        if w[slot(w, n - 1) + slots.FLAGS] & tcp.RST:
            return True
        n = w[slot(w, n - 1) + slots.NEXT]
    return False


@hot
def forget_resets(w, c):
    """Both go on behind their resets, so those were no end: a handshake refuses a wrong ack so (RFC 9293, 3.10.7.4)."""
    put(w, c + conns.FLAGS, w[c + conns.FLAGS] & ~RESETS)
    put(w, c + rows.CLOSED, 0)


@hot
def _look_behind(w, row, c, place):
    """A held reset of the primary has left, which stood at ``place`` of its stream: was it an end?"""
    if w[c + conns.FLAGS] & RESETS != RESETS or holds_reset(w, c):
        return
    if diff(w[c + conns.PRIMARY_NEXT], place) > 0 and diff(w[c + conns.COMPARED], place) > 0:
        n = w[c + conns.HEAD + conns.SECONDARY] - 1
        if n >= 0 and w[slot(w, n) + slots.FLAGS] & tcp.RST and w[slot(w, n) + slots.LIFE] == w[c + conns.LIFE]:
            unlink(w, row, n)
            count(w, row, counters.MATCHED, 1)
        forget_resets(w, c)
        n = w[c + conns.HEAD + conns.SECONDARY] - 1
        if n >= 0 and w[slot(w, n) + slots.FLAGS] & tcp.RST and w[slot(w, n) + slots.LIFE] == w[c + conns.LIFE]:
            put(w, c + conns.FLAGS, w[c + conns.FLAGS] | conns.CF_S_RST)  # it has reset again


@hot
def _release_one(u8, w, row, c, which):
    """Release the first packet of a list if it may leave: 1 released, 0 it may not (or there is none), -1 no room."""
    n = w[c + conns.HEAD + which] - 1
    if n < 0:
        return 0
    x = slot(w, n)
    flags, state = w[x + slots.FLAGS], w[c + conns.FLAGS]
    if flags & tcp.RST:
        if not has_reset(w, c) or w[c + conns.HEAD + conns.PACKETS] != 0:
            return 0
    elif which == conns.PACKETS and diff(w[x + slots.END], w[c + conns.COMPARED]) > 0:
        return 0
    if flags & tcp.SYN and state & conns.CF_SYN_MATCHED == 0:
        return 0
    if not acknowledged(w, c, flags, w[x + slots.ACK]) and not _resets_behind(w, c):
        return 0
    if not fits_slot(w, row, n):
        return -1
    if which == conns.ACKS:
        note_held_overtaking(u8, w, c, n)
    emit_in_time(u8, w, row, c, n)
    place = int(w[x + slots.END])
    unlink(w, row, n)
    count(w, row, counters.RELEASED, 1)
    note_reset(w, c)
    if flags & tcp.RST:
        _look_behind(w, row, c, place)
    forget_overtaking(w, c)
    return 1


@hot
def _pass_one(u8, w, row, c):
    """One packet of a connection that passes: the primary's oldest leaves, then the secondary's are dropped."""
    p, a = w[c + conns.HEAD + conns.PACKETS] - 1, w[c + conns.HEAD + conns.ACKS] - 1
    n = p
    if p < 0 or (a >= 0 and w[slot(w, a) + slots.TIME] < w[slot(w, p) + slots.TIME]):
        n = a
    if n >= 0:
        if not fits_slot(w, row, n):
            return -1
        emit_in_time(u8, w, row, c, n)
        release_counts(w, row, c, unlink(w, row, n))
        forget_overtaking(w, c)
        return 1
    n = w[c + conns.HEAD + conns.SECONDARY] - 1
    if n >= 0 and (w[slot(w, n) + slots.LIFE] <= w[c + conns.LIFE] or w[c + conns.FLAGS] & conns.CF_RULE):
        drop_counts(w, row, c, unlink(w, row, n))
        return 1
    return 0


@hot
def stream_offset(w, c, seq):
    """Where ``seq`` stands in the primary's stream after its SYN, modulo 2^32; -1 where that was not seen."""
    return add(seq, -w[c + conns.PRIMARY_ISN] - 1) if w[c + conns.FLAGS] & conns.CF_SYN_MATCHED else -1


@hot
def _compare_step(u8, w, row, c, now):
    """Compare what both sides have at conns.COMPARED: 1 when that went on, 0 when one side has nothing there."""
    n = w[c + conns.HEAD + conns.SECONDARY] - 1
    if n >= 0 and _dispose_of_secondary(w, row, c, n):
        return 1
    p = w[c + conns.CURSOR] - 1
    if p < 0 or n < 0 or not _comparable(w, c, n):
        return 0
    x, y, compared = slot(w, p), slot(w, n), w[c + conns.COMPARED]
    if diff(w[x + slots.END], compared) <= 0:
        put(w, c + conns.CURSOR, w[x + slots.NEXT])
        return 1
    mine, theirs = _place(w, x, compared), diff(compared, w[y + slots.SEQ])
    if mine < 0 or theirs < 0 or w[x + slots.FLAGS] & tcp.RST:
        return 0
    left, right = w[x + slots.DATA_LEN] - mine, w[y + slots.DATA_LEN] - theirs
    if min(left, right) > 0:
        a, b = w[x + slots.BYTES] + w[x + slots.DATA] + mine, w[y + slots.BYTES] + w[y + slots.DATA] + theirs
        _compare_bytes(u8, w, row, c, a, b, min(left, right), now)
    elif left == 0 and right == 0:  # both end here with FIN
        put(w, c + conns.COMPARED, add(compared, 1))
        put(w, c + rows.CLOSED, 1)
    else:
        _differ(u8, w, row, c, reasons.FLAGS, now)
    return 1


@hot
def _place(w, x, seq):
    """How far into the data of the primary's slot at ``x`` the number ``seq`` is: a SYN has one of its own."""
    return diff(seq, add(w[x + slots.SEQ], w[x + slots.FLAGS] >> 1 & 1))


@hot
def _dispose_of_secondary(w, row, c, n):
    """Whether the secondary's first held packet ``n`` could be dropped, or counted as matched, as it is."""
    y = slot(w, n)
    if w[y + slots.LIFE] < w[c + conns.LIFE]:
        unlink(w, row, n)
        count(w, row, counters.DROPPED_UNCOMPARED, 1)  # of a life that the primary has left
        return True
    if w[y + slots.LIFE] > w[c + conns.LIFE]:
        return False
    if w[y + slots.FLAGS] & tcp.RST:
        matched = w[c + conns.FLAGS] & conns.CF_P_RST != 0
    else:
        matched = _comparing(w, c) and diff(w[y + slots.END], w[c + conns.COMPARED]) <= 0
    if matched:
        unlink(w, row, n)
        count(w, row, counters.MATCHED, 1)
    return matched


@hot
def _comparing(w, c):
    """Whether the streams are compared now: where is known, and neither a SYN nor a checkpoint is waited for."""
    return w[c + conns.FLAGS] & (NOT_NOW | conns.CF_SYNCED) == conns.CF_SYNCED


@hot
def _comparable(w, c, n):
    """Whether the secondary's packet ``n`` is of the life that is compared, and no reset (which comes first)."""
    y = slot(w, n)
    return _comparing(w, c) and w[y + slots.LIFE] == w[c + conns.LIFE] and w[y + slots.FLAGS] & tcp.RST == 0


@hot
def _compare_bytes(u8, w, row, c, a, b, length, now):
    """Compare ``length`` bytes at ``a`` (primary) and ``b``, which stand at conns.COMPARED."""
    compared = w[c + conns.COMPARED]
    if masks(w, c):
        agreed = agree_stream(u8, w, c, a, b, length, stream_offset(w, c, compared))
        same = agreed & 0xFFFFFFFF
        if agreed >> 32 != 0:
            count(w, row, counters.MASKED, 1)
            hit(w, c, 1)
    else:
        same = common_prefix(u8, a, b, length)
    if same > 0:
        put(w, c + conns.COMPARED, add(compared, same))
    if same < length:
        _differ(u8, w, row, c, reasons.PAYLOAD, now)


@hot
def _differ(u8, w, row, c, reason, now):
    """The two packets that are compared, at conns.CURSOR and the secondary's first, differ at conns.COMPARED.

    Report it, and diverge.
    """
    p, n, compared = w[c + conns.CURSOR] - 1, w[c + conns.HEAD + conns.SECONDARY] - 1, w[c + conns.COMPARED]
    x, y = slot(w, p), slot(w, n)
    mine, theirs = _place(w, x, compared), diff(compared, w[y + slots.SEQ])
    e = write_event(u8, w, row, c, reason, stream_offset(w, c, compared), now)
    keep_packets(u8, w, row, c, e, p, mine, n, theirs)
    # Where bytes differ, show both sides from a common origin: the first byte that both segments have.
    back = min(mine, theirs) if reason == reasons.PAYLOAD else 0
    a, b = w[x + slots.BYTES] + w[x + slots.DATA] + mine - back, w[y + slots.BYTES] + w[y + slots.DATA] + theirs - back
    left, right = w[x + slots.DATA_LEN] - mine + back, w[y + slots.DATA_LEN] - theirs + back
    event_bytes(u8, w, e, a, left, b, right, back)
    diverge(u8, w, row, c, reason, now)
