"""Everything but TCP in the compare: one packet against one packet, by IP payload, the oldest first.

The IP header is ignored (identification, TTL and TOS may differ).  A packet with no equal among those that wait on the
other side waits too; where both sides wait with nothing equal for ``reorder_grace_ms``, that is a difference.  Either
packet may be one that was put together of fragments (`stages.compare.kernels.fragments`): frames are counted, not
packets.
"""

from __future__ import annotations

from ring.atomics import be32, common_prefix
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import blocked, count, put, scalar
from stages.compare.kernels.events import event_bytes, write_event
from stages.compare.kernels.evidence import keep_packets
from stages.compare.kernels.rules import agree_datagram, hit
from stages.compare.kernels.slots import emit_slot, fits_slot, link, slot, store_frame, unlink
from stages.compare.kernels.tcp_segments import release_record
from stages.compare.kernels.verdict import diverge
from stages.compare.layout.words import (
    C_COUNT,
    C_FLAGS,
    C_GRACE_NEXT,
    C_GRACE_PREV,
    C_GRACE_SINCE,
    C_HEAD,
    C_RULE,
    C_VERDICT,
    CF_DIVERGED,
    DROPPED_DIVERGED,
    MASKED,
    MATCHED,
    O_GRACE_NS,
    O_LOCAL,
    O_MAX_QUEUE,
    O_STUCK,
    OUTDEV,
    PACKETS,
    PASSES,
    R_ORDER,
    RELEASED,
    S_BYTES,
    S_DATA,
    S_DATA_LEN,
    S_NEXT,
    S_TIME,
    SC_GRACE_FIRST,
    SC_GRACE_LAST,
    SECONDARY,
)
from stages.packets.layout.packet import F_END, F_L4, FRAGMENT


@hot
def _agree(u8, w, c, a, b, length):
    if w[c + C_RULE] == 0:
        return common_prefix(u8, a, b, length)
    return agree_datagram(u8, w, c, a, b, length) & 0xFFFFFFFF


@hot
def count_masked(u8, w, row, c, a, b, length):
    """Count that two payloads were taken as equal for the sake of a mask, where that is so."""
    if w[c + C_RULE] != 0 and agree_datagram(u8, w, c, a, b, length) >> 32 != 0:
        count(w, row, MASKED, 1)
        hit(w, c, 1)


@hot
def equal_held(u8, w, c, which, payload, length):
    """The oldest packet held in list ``which`` whose IP payload equals ``length`` bytes at ``payload``; slot or -1."""
    n = w[c + C_HEAD + which] - 1
    while n >= 0:
        x = slot(w, n)
        if w[x + S_DATA_LEN] == length:
            if _agree(u8, w, c, w[x + S_BYTES] + w[x + S_DATA], payload, length) == length:
                return n
        n = w[x + S_NEXT] - 1
    return -1


@hot
def datagram(u8, w, row, c, r, position, side, s, now):
    """Take a packet of ``side`` (0 primary, 1 secondary); False where it has to wait in the ring."""
    at = index(w, r, position)
    lead = prefix(w, r)
    vnet = be32(u8, at + 4) if lead == 8 else 0
    length = w[s + F_END] - w[s + F_L4]
    payload = at + lead + vnet + w[s + F_L4]
    which, other = (SECONDARY, PACKETS) if side else (PACKETS, SECONDARY)
    n = -1
    if w[c + C_FLAGS] & CF_DIVERGED == 0:
        n = equal_held(u8, w, c, other, payload, length)
    if n >= 0:
        if side == 1 and not fits_slot(w, row, n):
            blocked(w, OUTDEV)
            return False
        if side == 0 and not release_record(u8, w, row, r, position):
            return False
        x = slot(w, n)
        count_masked(u8, w, row, c, w[x + S_BYTES] + w[x + S_DATA], payload, length)
        if side == 1:
            emit_slot(u8, w, row, n)
        frames = unlink(w, row, n)
        count(w, row, RELEASED, frames if side else 1)
        count(w, row, MATCHED, 1 if side else frames)
        watch(w, row, c, now)
        return True
    if w[c + C_COUNT + which] >= w[O_MAX_QUEUE]:
        w[O_STUCK] |= 1 << side
        return False
    n = store_frame(u8, w, row, r, position, side, s, now)
    if n < 0:
        w[O_STUCK] |= 1 << side
        return False
    x = slot(w, n)
    w[x + S_DATA] = vnet + w[s + F_L4]  # the whole IP payload is compared, its own header included
    w[x + S_DATA_LEN] = length
    link(w, row, c, which, n, False)
    watch(w, row, c, now)
    return True


@hot
def watch(w, row, c, now):
    """Keep the connection on the grace list while both sides hold packets: none of them are equal."""
    both = w[c + C_HEAD + PACKETS] != 0 and w[c + C_HEAD + SECONDARY] != 0 and w[c + C_FLAGS] & CF_DIVERGED == 0
    # Unfinished datagrams, and those that a rule lets pass, are compared with nothing.
    both = both and w[c + C_VERDICT] != FRAGMENT and w[c + C_FLAGS] & PASSES == 0
    if both and w[c + C_GRACE_SINCE] == 0:
        _join(w, row, c, now)
    elif not both:
        leave(w, row, c)


@hot
def _join(w, row, c, since):
    last = w[scalar(row, SC_GRACE_LAST)]
    put(w, c + C_GRACE_SINCE, since)
    put(w, c + C_GRACE_PREV, last)
    put(w, c + C_GRACE_NEXT, 0)
    if last == 0:
        w[scalar(row, SC_GRACE_FIRST)] = c
    else:
        put(w, last + C_GRACE_NEXT, c)
    w[scalar(row, SC_GRACE_LAST)] = c


@hot
def leave(w, row, c):
    """Take the connection off the grace list, if it is there."""
    if w[c + C_GRACE_SINCE] == 0:
        return
    before, behind = w[c + C_GRACE_PREV], w[c + C_GRACE_NEXT]
    put(w, c + C_GRACE_SINCE, 0)
    if before == 0:
        w[scalar(row, SC_GRACE_FIRST)] = behind
    else:
        put(w, before + C_GRACE_NEXT, behind)
    if behind == 0:
        w[scalar(row, SC_GRACE_LAST)] = before
    else:
        put(w, behind + C_GRACE_PREV, before)


@hot
def grace_over(u8, w, row, now):
    """Take the connection that differs longest as diverged, if its grace is over: 1, 0 for none, -1 for no room."""
    c = w[scalar(row, SC_GRACE_FIRST)]
    if c == 0 or now - w[c + C_GRACE_SINCE] < w[O_GRACE_NS]:
        return 0
    p, n = w[c + C_HEAD + PACKETS] - 1, w[c + C_HEAD + SECONDARY] - 1
    x, y = slot(w, p), slot(w, n)
    since = max(w[x + S_TIME], w[y + S_TIME])
    if now - since < w[O_GRACE_NS]:  # others waited when it joined the list, and have met their equals
        leave(w, row, c)
        _join(w, row, c, since)
        return 1
    if w[O_LOCAL] != 0 and not fits_slot(w, row, p):
        blocked(w, OUTDEV)
        return -1
    a, b = w[x + S_BYTES] + w[x + S_DATA], w[y + S_BYTES] + w[y + S_DATA]
    same = _agree(u8, w, c, a, b, min(w[x + S_DATA_LEN], w[y + S_DATA_LEN]))
    if same == w[x + S_DATA_LEN] == w[y + S_DATA_LEN]:  # by a mask that came while they waited
        if not fits_slot(w, row, p):
            blocked(w, OUTDEV)
            return -1
        count_masked(u8, w, row, c, a, b, same)
        give_up(u8, w, row, p)
        count(w, row, MATCHED, unlink(w, row, n))
        leave(w, row, c)
        watch(w, row, c, now)
        return 1
    e = write_event(u8, w, row, c, R_ORDER, same, now)
    keep_packets(u8, w, row, c, e, p, same, n, same)
    event_bytes(u8, w, e, a, w[x + S_DATA_LEN], b, w[y + S_DATA_LEN], same)
    diverge(u8, w, row, c, R_ORDER, now)
    if w[O_LOCAL] != 0:  # nobody makes checkpoints: this pair is done with, the rest goes on
        give_up(u8, w, row, p)
        count(w, row, DROPPED_DIVERGED, unlink(w, row, n))
    leave(w, row, c)
    watch(w, row, c, now)  # in local mode on the list again, from now, where more pairs wait
    return 1


@hot
def give_up(u8, w, row, n):
    """Release the held primary packet ``n``; the caller has seen that it fits."""
    emit_slot(u8, w, row, n)
    count(w, row, RELEASED, unlink(w, row, n))
