"""Everything but TCP in the compare: one packet against one packet, by IP payload, the oldest first.

The IP header is ignored (identification, TTL and TOS may differ).  A packet with no equal among those that wait on the
other side waits too; where both sides wait with nothing equal for ``reorder_grace_ms``, that is a difference.  Either
packet may be one that was put together of fragments (`stages.compare.kernels.fragments`): frames are counted, not
packets.
"""

from __future__ import annotations

from ring.atomics import common_prefix
from ring.hot import hot
from ring.kernels.ledger import blocked, count, scalar
from stages.compare.kernels.checkpoint_requests import goes_on_alone
from stages.compare.kernels.divergence import diverge
from stages.compare.kernels.events import event_bytes, write_event
from stages.compare.kernels.evidence import keep_packets
from stages.compare.kernels.grace import join, leave, watch
from stages.compare.kernels.release import release_held, release_packet
from stages.compare.kernels.rules import agree_datagram, hit
from stages.compare.kernels.slots import emit_slot, fits_slot, link, slot, store_packet, unlink
from stages.compare.layout import conns, counters, options, ports, reasons, scalars, slots
from stages.packets.layout import parsed


@hot
def _agree(u8, w, c, a, b, length):
    if w[c + conns.RULE] == 0:
        return common_prefix(u8, a, b, length)
    return agree_datagram(u8, w, c, a, b, length) & 0xFFFFFFFF


@hot
def count_masked(u8, w, row, c, a, b, length):
    """Count that two payloads were taken as equal for the sake of a mask, where that is so."""
    if w[c + conns.RULE] != 0 and agree_datagram(u8, w, c, a, b, length) >> 32 != 0:
        count(w, row, counters.MASKED, 1)
        hit(w, c, 1)


@hot
def equal_held(u8, w, c, which, payload, length):
    """The oldest packet held in list ``which`` whose IP payload equals ``length`` bytes at ``payload``; slot or -1."""
    n = w[c + conns.HEAD + which] - 1
    while n >= 0:
        x = slot(w, n)
        if w[x + slots.DATA_LEN] == length:
            if _agree(u8, w, c, w[x + slots.BYTES] + w[x + slots.DATA], payload, length) == length:
                return n
        n = w[x + slots.NEXT] - 1
    return -1


@hot
def datagram(u8, w, row, c, side, s, now):
    """Take the packet at hand (fields at ``s``) of ``side`` (0 primary, 1 secondary); False where it has to wait."""
    length = w[s + parsed.END] - w[s + parsed.L4]
    payload = w[s + parsed.FRAME] + w[s + parsed.L4]
    which, other = (conns.SECONDARY, conns.PACKETS) if side else (conns.PACKETS, conns.SECONDARY)
    n = -1
    if w[c + conns.FLAGS] & conns.CF_DIVERGED == 0:
        n = equal_held(u8, w, c, other, payload, length)
    if n >= 0:
        if side == 1 and not fits_slot(w, row, n):
            blocked(w, ports.OUTDEV)
            return False
        if side == 0 and not release_packet(u8, w, row, s):
            return False
        x = slot(w, n)
        count_masked(u8, w, row, c, w[x + slots.BYTES] + w[x + slots.DATA], payload, length)
        if side == 1:
            emit_slot(u8, w, row, n)
        frames = unlink(w, row, n)
        count(w, row, counters.RELEASED, frames if side else 1)
        count(w, row, counters.MATCHED, 1 if side else frames)
        watch(w, row, c, now)
        return True
    if w[c + conns.COUNT + which] >= w[options.MAX_QUEUE]:
        w[options.STUCK] |= 1 << side
        return False
    n = store_packet(u8, w, row, side, s, now)
    if n < 0:
        w[options.STUCK] |= 1 << side
        return False
    x = slot(w, n)
    # The whole IP payload is compared, its own header included.
    w[x + slots.DATA] = w[x + slots.VNET] + w[s + parsed.L4]
    w[x + slots.DATA_LEN] = length
    link(w, row, c, which, n, False)
    watch(w, row, c, now)
    return True


@hot
def grace_over(u8, w, row, now):
    """Take the connection that differs longest as diverged, if its grace is over: 1, 0 for none, -1 for no room."""
    c = w[scalar(row, scalars.GRACE_FIRST)]
    if c == 0 or now - max(w[c + conns.GRACE_SINCE], w[options.WOKE]) < w[options.GRACE_NS]:
        return 0
    p, n = w[c + conns.HEAD + conns.PACKETS] - 1, w[c + conns.HEAD + conns.SECONDARY] - 1
    x, y = slot(w, p), slot(w, n)
    since = max(w[x + slots.TIME], w[y + slots.TIME])
    if now - since < w[options.GRACE_NS]:  # others waited when it joined the list, and have met their equals
        leave(w, row, c)
        join(w, row, c, since)
        return 1
    if goes_on_alone(w, row) and not fits_slot(w, row, p):
        blocked(w, ports.OUTDEV)
        return -1
    a, b = w[x + slots.BYTES] + w[x + slots.DATA], w[y + slots.BYTES] + w[y + slots.DATA]
    same = _agree(u8, w, c, a, b, min(w[x + slots.DATA_LEN], w[y + slots.DATA_LEN]))
    if same == w[x + slots.DATA_LEN] == w[y + slots.DATA_LEN]:  # by a mask that came while they waited
        if not fits_slot(w, row, p):
            blocked(w, ports.OUTDEV)
            return -1
        count_masked(u8, w, row, c, a, b, same)
        release_held(u8, w, row, p)
        count(w, row, counters.MATCHED, unlink(w, row, n))
        leave(w, row, c)
        watch(w, row, c, now)
        return 1
    e = write_event(u8, w, row, c, reasons.ORDER, same, now)
    keep_packets(u8, w, row, c, e, p, same, n, same)
    event_bytes(u8, w, e, a, w[x + slots.DATA_LEN], b, w[y + slots.DATA_LEN], same)
    diverge(u8, w, row, c, reasons.ORDER, now)
    if goes_on_alone(w, row):  # no checkpoint is waited for: this pair is done with, the rest goes on
        release_held(u8, w, row, p)
        count(w, row, counters.DROPPED_DIVERGED, unlink(w, row, n))
    leave(w, row, c)
    watch(w, row, c, now)  # in local mode on the list again, from now, where more pairs wait
    return 1
