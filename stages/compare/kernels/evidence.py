"""Keeping what explains a difference: the beginning of every packet for a while, and at a difference a connection's."""

from __future__ import annotations

from ring import layout
from ring.atomics import copy
from ring.hot import hot
from ring.kernels.ledger import count, scalar
from stages.compare.kernels.slots import slot
from stages.compare.layout import conns, counters, events, history, kept, options, records, scalars, slots
from stages.packets.layout import rows


@hot
def note_packet(u8, w, row, side, c, at, length, now):
    """Keep the beginning of the frame of ``length`` bytes at ``at``, the next that will be counted at ``side``."""
    if w[options.HISTORY] == 0:
        return
    taken = w[row + layout.ROW_COUNTERS + side]  # frames taken from an input are counted at its number
    h = w[options.HISTORY] + (side * history.COUNT + (taken & history.COUNT - 1)) * history.WORDS
    w[h + history.TIME] = now
    w[h + history.CONN] = c
    w[h + history.HASH] = w[c + rows.HASH]
    w[h + history.LENGTH] = length
    copy(u8, (h + history.BYTES) * 8, at, min(length, history.KEPT_BYTES))


@hot
def keep_packets(u8, w, row, c, e, p, p_at, s, s_at):
    """Copy the packets of connection ``c`` into a free record and name it in event ``e``.

    ``p`` and ``s`` are the slots that differ (-1: none on that side), the difference being ``p_at`` and ``s_at`` bytes
    into what is compared of them.
    """
    if w[options.HISTORY] == 0:
        return
    n = w[scalar(row, scalars.RECORDS)]
    if n - w[options.RECORDS_TAKEN] >= records.COUNT:
        count(w, row, counters.RECORDS_SKIPPED, 1)
        return
    r = w[options.RECORDS] + n % records.COUNT * records.WORDS
    w[r + records.EVENT] = w[scalar(row, scalars.EVENTS)] - 1
    w[r + records.PACKETS] = 0
    w[r + records.USED] = records.HEADER
    w[r + records.LEFT_OUT] = 0
    if p >= 0:
        _keep_slot(u8, w, r, p, 0, p_at)
    if s >= 0:
        _keep_slot(u8, w, r, s, 1, s_at)
    _keep_list(u8, w, r, c, conns.PACKETS, p)
    _keep_list(u8, w, r, c, conns.SECONDARY, s)
    _keep_list(u8, w, r, c, conns.ACKS, p)
    for side in range(2):
        _keep_passed(u8, w, row, r, c, side)
    w[e + events.RECORD] = n + 1
    w[scalar(row, scalars.RECORDS)] = n + 1
    count(w, row, counters.RECORDS, 1)


@hot
def _keep_slot(u8, w, r, n, side, at):
    x = slot(w, n)
    start = w[x + slots.VNET]
    k = _keep(u8, w, r, w[x + slots.TIME], side, kept.HELD, w[x + slots.BYTES] + start, w[x + slots.FRAME] - start)
    if k != 0 and at >= 0:
        w[k + kept.AT] = w[x + slots.DATA] - start + at


@hot
def _keep_list(u8, w, r, c, which, but):
    n = w[c + conns.HEAD + which] - 1
    shown = 0
    while n >= 0:
        if n != but:
            if shown < kept.MOST_HELD:
                _keep_slot(u8, w, r, n, 1 if which == conns.SECONDARY else 0, -1)
            else:
                w[r + records.LEFT_OUT] += 1
            shown += 1
        n = w[slot(w, n) + slots.NEXT] - 1


@hot
def _keep_passed(u8, w, row, r, c, side):
    """The last packets of the connection that were taken from ``side``, newest first; held ones are among them."""
    taken = w[row + layout.ROW_COUNTERS + side]
    shown = 0
    for back in range(min(taken + 1, history.COUNT)):  # the one that is being taken is noted, but not yet counted
        h = w[options.HISTORY] + (side * history.COUNT + (taken - back & history.COUNT - 1)) * history.WORDS
        if w[h + history.CONN] == c and w[h + history.HASH] == w[c + rows.HASH]:
            at = (h + history.BYTES) * 8
            _keep(u8, w, r, w[h + history.TIME], side, kept.PASSED, at, w[h + history.LENGTH])
            shown += 1
            if shown == kept.MOST_PASSED:
                break


@hot
def _keep(u8, w, r, time, side, kind, at, length):
    """Copy the frame of ``length`` bytes at ``at`` into record ``r``; where it lies in it, 0: it found no room."""
    copied = min(length, kept.MOST_BYTES if kind == kept.HELD else history.KEPT_BYTES)
    used = w[r + records.USED]
    size = kept.HEADER + (copied + 7) // 8
    if used + size > records.WORDS:
        w[r + records.LEFT_OUT] += 1
        return 0
    k = r + used
    w[k + kept.TIME] = time
    w[k + kept.SIDE] = side
    w[k + kept.KIND] = kind
    w[k + kept.LENGTH] = length
    w[k + kept.BYTES] = copied
    w[k + kept.AT] = -1
    copy(u8, (k + kept.HEADER) * 8, at, copied)
    w[r + records.USED] = used + size
    w[r + records.PACKETS] += 1
    return k
