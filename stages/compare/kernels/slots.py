"""Packets held back by the compare: slots, the lists of a connection, and the order of arrival of each side.

A slot in a list is one held packet.  It stands for one frame, or for the fragments of a datagram (``S_PARTS``), which
leave and are given back with it; so what is counted by frames goes by ``S_FRAMES``.

``row`` is the ledger's row, ``c`` a connection's row, ``n`` a slot number, ``x`` the word index of a slot.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, copy, put_be32
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import count, put, room, scalar, true_row
from stages.compare.layout.words import (
    C_COUNT,
    C_CURSOR,
    C_HEAD,
    C_TAIL,
    CLASS_BYTES,
    HELD,
    HELD_PRIMARY,
    HELD_SECONDARY,
    O_MASKS,
    O_QUEUES,
    O_RECYCLE,
    O_RECYCLED,
    O_SLOTS,
    OUTDEV,
    PACKETS,
    S_ACK,
    S_BURST,
    S_BYTES,
    S_CONN,
    S_DATA,
    S_DATA_LEN,
    S_EARLIER,
    S_EMIT,
    S_END,
    S_FLAGS,
    S_FRAME,
    S_FRAMES,
    S_GROUP,
    S_LATER,
    S_LIFE,
    S_LIST,
    S_NEXT,
    S_PARTS,
    S_PREV,
    S_SEQ,
    S_SIBLING,
    S_TIME,
    S_V,
    SC_NEWEST,
    SC_OLDEST,
    SC_QUEUE_HEAD,
    SC_QUEUE_TAIL,
    SECONDARY,
    SLOT_WORDS,
)
from stages.packets.kernels.serial import diff
from stages.packets.layout.packet import F_ACK, F_DATA, F_DATA_LEN, F_FLAGS, F_SEQ, RST, SYN
from stages.packets.layout.table import R_PINNED

_SMALL, _LARGE, _JUMBO = CLASS_BYTES


@hot
def slot(w, n):
    """Word index of slot ``n``."""
    return w[O_SLOTS] + n * SLOT_WORDS


@hot
def take_slot(w, row, side, nbytes):
    """A free slot of ``side`` for a frame of ``nbytes``, of its size class or the next larger one; -1: none."""
    size_class = 0 if nbytes <= _SMALL else (1 if nbytes <= _LARGE else 2)
    for g in range(side * 3 + size_class, side * 3 + 3):
        if w[O_RECYCLED + g] > 0:
            w[O_RECYCLED + g] -= 1
            return w[w[O_RECYCLE] + (w[O_QUEUES + g] - w[O_QUEUES]) // 2 + w[O_RECYCLED + g]]
        head = w[scalar(row, SC_QUEUE_HEAD + g)]
        # Only what was free before this burst: a slot given back in it may be needed again if the burst is undone.
        if head < w[scalar(true_row(w), SC_QUEUE_TAIL + g)]:
            w[scalar(row, SC_QUEUE_HEAD + g)] = head + 1
            return w[w[O_QUEUES + g] + (head & w[O_MASKS + g])]
    return -1


@hot
def give_slot(w, row, n):
    """Give slot ``n`` back: at once if it was taken in this burst, else from the next burst on."""
    x = slot(w, n)
    g = w[x + S_GROUP]
    if w[x + S_BURST] == w[layout.COMMITTED] + 1:
        w[w[O_RECYCLE] + (w[O_QUEUES + g] - w[O_QUEUES]) // 2 + w[O_RECYCLED + g]] = n
        w[O_RECYCLED + g] += 1
        return
    _enqueue(w, row, g, n)


@hot
def _enqueue(w, row, g, n):
    tail = w[scalar(row, SC_QUEUE_TAIL + g)]
    # Written plainly: beyond the committed tail, and the queue is twice as long as there are slots.
    w[w[O_QUEUES + g] + (tail & w[O_MASKS + g])] = n
    w[scalar(row, SC_QUEUE_TAIL + g)] = tail + 1


@hot
def start_recycling(w):
    """At the start of a burst: what an unfinished burst left on the stacks is void."""
    for g in range(6):
        w[O_RECYCLED + g] = 0


@hot
def finish_recycling(w, row):
    """Before the commit: slots taken and given back in this burst return to their queues."""
    for g in range(6):
        while w[O_RECYCLED + g] > 0:
            w[O_RECYCLED + g] -= 1
            _enqueue(w, row, g, w[w[O_RECYCLE] + (w[O_QUEUES + g] - w[O_QUEUES]) // 2 + w[O_RECYCLED + g]])


@hot
def store_frame(u8, w, row, r, position, side, s, now):
    """Copy the record at ``position`` of ring ``r`` into a slot with the fields parsed at ``s``; slot number or -1."""
    at = index(w, r, position)
    lead = prefix(w, r)
    nbytes = be32(u8, at)
    n = take_slot(w, row, side, nbytes)
    if n < 0:
        return -1
    x = slot(w, n)
    vnet = be32(u8, at + 4) if lead == 8 else 0
    copy(u8, w[x + S_BYTES], at + lead, nbytes)
    fill_slot(w, n, nbytes, vnet, now)
    w[x + S_SEQ] = w[s + F_SEQ]
    w[x + S_ACK] = w[s + F_ACK]
    w[x + S_FLAGS] = w[s + F_FLAGS]
    w[x + S_DATA] = vnet + w[s + F_DATA]
    w[x + S_DATA_LEN] = w[s + F_DATA_LEN]
    w[x + S_END] = w[s + F_SEQ]
    return n


@hot
def fill_slot(w, n, nbytes, vnet, now):
    """Describe a frame of ``nbytes``, of which ``vnet`` are a virtio-net header, in the slot ``n`` just taken."""
    x = slot(w, n)
    w[x + S_FRAME] = nbytes
    w[x + S_V] = vnet
    w[x + S_TIME] = now
    w[x + S_BURST] = w[layout.COMMITTED] + 1
    w[x + S_LIFE] = 0
    w[x + S_FRAMES] = 1
    w[x + S_PARTS] = 0
    w[x + S_SIBLING] = 0
    w[x + S_EMIT] = prefix(w, w[layout.OUTPUTS + OUTDEV]) + nbytes


@hot
def link(w, row, c, which, n, ordered):
    """Put slot ``n`` into list ``which`` of connection ``c``: by life, then S_SEQ where ``ordered``, else last."""
    x = slot(w, n)
    side = 1 if which == SECONDARY else 0
    before = w[c + C_TAIL + which]
    if ordered:
        while before != 0:
            y = slot(w, before - 1)
            if w[y + S_LIFE] != w[x + S_LIFE] or w[y + S_FLAGS] & SYN:
                break
            if w[y + S_FLAGS] & RST == 0 and diff(w[y + S_SEQ], w[x + S_SEQ]) <= 0:  # a RST comes last
                break
            before = w[y + S_PREV]
    behind = w[c + C_HEAD + which] if before == 0 else w[slot(w, before - 1) + S_NEXT]
    w[x + S_PREV] = before
    w[x + S_NEXT] = behind
    w[x + S_CONN] = c
    w[x + S_LIST] = which
    if before == 0:
        put(w, c + C_HEAD + which, n + 1)
    else:
        put(w, slot(w, before - 1) + S_NEXT, n + 1)
    if behind == 0:
        put(w, c + C_TAIL + which, n + 1)
    else:
        put(w, slot(w, behind - 1) + S_PREV, n + 1)
    put(w, c + C_COUNT + which, w[c + C_COUNT + which] + 1)
    put(w, c + R_PINNED, w[c + R_PINNED] + 1)
    newest = w[scalar(row, SC_NEWEST + side)]
    w[x + S_EARLIER] = newest
    w[x + S_LATER] = 0
    if newest == 0:
        w[scalar(row, SC_OLDEST + side)] = n + 1
    else:
        put(w, slot(w, newest - 1) + S_LATER, n + 1)
    w[scalar(row, SC_NEWEST + side)] = n + 1
    count_held(w, row, side, w[x + S_FRAMES])


@hot
def count_held(w, row, side, frames):
    """Count frames of ``side`` that are held from now on (below 0: no more)."""
    count(w, row, HELD, frames)
    count(w, row, HELD_SECONDARY if side else HELD_PRIMARY, frames)


@hot
def unlink(w, row, n):
    """Take slot ``n`` out of its lists and give it back; the number of frames that it stood for."""
    frames = detach(w, row, n)
    give_back(w, row, n)
    return frames


@hot
def detach(w, row, n):
    """Take slot ``n`` out of its lists; the number of frames that it stands for."""
    x = slot(w, n)
    c, which = w[x + S_CONN], w[x + S_LIST]
    side = 1 if which == SECONDARY else 0
    before, behind = w[x + S_PREV], w[x + S_NEXT]
    if which == PACKETS and w[c + C_CURSOR] == n + 1:
        put(w, c + C_CURSOR, behind)
    if before == 0:
        put(w, c + C_HEAD + which, behind)
    else:
        put(w, slot(w, before - 1) + S_NEXT, behind)
    if behind == 0:
        put(w, c + C_TAIL + which, before)
    else:
        put(w, slot(w, behind - 1) + S_PREV, before)
    put(w, c + C_COUNT + which, w[c + C_COUNT + which] - 1)
    put(w, c + R_PINNED, w[c + R_PINNED] - 1)
    earlier, later = w[x + S_EARLIER], w[x + S_LATER]
    if earlier == 0:
        w[scalar(row, SC_OLDEST + side)] = later
    else:
        put(w, slot(w, earlier - 1) + S_LATER, later)
    if later == 0:
        w[scalar(row, SC_NEWEST + side)] = earlier
    else:
        put(w, slot(w, later - 1) + S_EARLIER, earlier)
    count_held(w, row, side, -w[x + S_FRAMES])
    return w[x + S_FRAMES]


@hot
def give_back(w, row, n):
    """Give back slot ``n``, which is in no list, and its parts."""
    give_parts(w, row, n)
    give_slot(w, row, n)


@hot
def give_parts(w, row, n):
    """Give back the parts of slot ``n``, but not itself where it is one of them."""
    part = w[slot(w, n) + S_PARTS]
    while part != 0:
        behind = w[slot(w, part - 1) + S_SIBLING]
        if part != n + 1:
            give_slot(w, row, part - 1)
        part = behind


@hot
def fits_slot(w, row, n):
    """Whether outdev has room for all that slot ``n`` stands for."""
    return room(w, row, OUTDEV) >= w[slot(w, n) + S_EMIT]


@hot
def emit_slot(u8, w, row, n):
    """Send what slot ``n`` stands for to outdev; the caller has seen that it fits."""
    part = w[slot(w, n) + S_PARTS]
    if part == 0:
        _emit_frame(u8, w, row, n)
    while part != 0:
        _emit_frame(u8, w, row, part - 1)
        part = w[slot(w, part - 1) + S_SIBLING]


@hot
def _emit_frame(u8, w, row, n):
    x = slot(w, n)
    out = w[layout.OUTPUTS + OUTDEV]
    at = index(w, out, w[row + layout.ROW_TAILS + OUTDEV])
    lead = prefix(w, out)
    put_be32(u8, at, w[x + S_FRAME])
    if lead == 8:
        put_be32(u8, at + 4, w[x + S_V])
    copy(u8, at + lead, w[x + S_BYTES], w[x + S_FRAME])
    w[row + layout.ROW_TAILS + OUTDEV] += lead + w[x + S_FRAME]
    count(w, row, layout.PORTS + OUTDEV, 1)
