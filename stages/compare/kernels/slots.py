"""Packets held back by the compare: slots, the lists of a connection, and the order of arrival of each side.

A slot in a list is one held packet.  It stands for one frame, or for the fragments of a datagram (`slots.PARTS`),
which leave and are given back with it: `slots.FRAMES` says how many frames are to be counted for it.

``row`` is the ledger's row, ``c`` a connection's row, ``n`` a slot number, ``x`` the word index of a slot.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, copy, put_be32
from ring.hot import hot
from ring.kernels.frames import index, prefix, vnet_bytes
from ring.kernels.ledger import count, put, room, scalar, true_row
from stages.compare.layout import conns, counters, memory, options, ports, queues, scalars, slots
from stages.packets.kernels.serial import diff
from stages.packets.layout import parsed, rows, tcp

_SMALL, _LARGE, _JUMBO = memory.CLASS_BYTES


@hot
def slot(w, n):
    """Word index of slot ``n``."""
    return w[options.SLOTS] + n * slots.WORDS


@hot
def take_slot(w, row, side, nbytes):
    """A free slot of ``side`` for a frame of ``nbytes``, of its size class or the next larger one; -1: none."""
    size_class = 0 if nbytes <= _SMALL else (1 if nbytes <= _LARGE else 2)
    for g in range(side * 3 + size_class, side * 3 + 3):
        if w[options.RECYCLED + g] > 0:
            return _unstack(w, g)
        head = w[scalar(row, scalars.QUEUE_HEAD + g)]
        # Only what was free before this burst: a slot given back in it may be needed again if the burst is undone.
        if head < w[scalar(true_row(w), scalars.QUEUE_TAIL + g)]:
            w[scalar(row, scalars.QUEUE_HEAD + g)] = head + 1
            return w[_entry(w, g, head) + queues.SLOT]
    return -1


@hot
def _entry(w, g, position):
    """Word index of an entry of free queue ``g``."""
    return w[options.QUEUES + g] + (position & w[options.MASKS + g]) * queues.WORDS


@hot
def _stacked(w, g):
    """Word index of the first entry above the recycle stack of queue ``g``, which is half as long as the queue."""
    bottom = w[options.RECYCLE] + (w[options.QUEUES + g] - w[options.QUEUES]) // 2
    return bottom + w[options.RECYCLED + g] * queues.WORDS


@hot
def _unstack(w, g):
    """The slot on top of the recycle stack of queue ``g``, taken from it."""
    w[options.RECYCLED + g] -= 1
    return w[_stacked(w, g) + queues.SLOT]


@hot
def give_slot(w, row, n):
    """Give slot ``n`` back: at once if it was taken in this burst, else from the next burst on."""
    x = slot(w, n)
    g = w[x + slots.QUEUE]
    if w[x + slots.BURST] == w[layout.COMMITTED] + 1:
        w[_stacked(w, g) + queues.SLOT] = n
        w[options.RECYCLED + g] += 1
        return
    _enqueue(w, row, g, n)


@hot
def _enqueue(w, row, g, n):
    tail = w[scalar(row, scalars.QUEUE_TAIL + g)]
    # Written plainly: beyond the committed tail, and the queue is twice as long as there are slots.
    w[_entry(w, g, tail) + queues.SLOT] = n
    w[scalar(row, scalars.QUEUE_TAIL + g)] = tail + 1


@hot
def start_recycling(w):
    """At the start of a burst: empty the stacks, on which an unfinished burst may have left something."""
    for g in range(options.QUEUE_COUNT):
        w[options.RECYCLED + g] = 0


@hot
def finish_recycling(w, row):
    """Before the commit: slots taken and given back in this burst return to their queues."""
    for g in range(options.QUEUE_COUNT):
        while w[options.RECYCLED + g] > 0:
            _enqueue(w, row, g, _unstack(w, g))


@hot
def store_packet(u8, w, row, side, s, now):
    """Copy the packet at hand (fields at ``s``) into a slot of ``side``; slot number or -1."""
    r = w[s + parsed.RING]
    at = index(w, r, w[s + parsed.POSITION])
    lead = prefix(w, r)
    nbytes = be32(u8, at)
    n = take_slot(w, row, side, nbytes)
    if n < 0:
        return -1
    x = slot(w, n)
    vnet = vnet_bytes(u8, w, r, at)
    copy(u8, w[x + slots.BYTES], at + lead, nbytes)
    fill_slot(w, n, nbytes, vnet, now)
    w[x + slots.SEQ] = w[s + parsed.SEQ]
    w[x + slots.ACK] = w[s + parsed.ACK]
    w[x + slots.FLAGS] = w[s + parsed.FLAGS]
    w[x + slots.DATA] = vnet + w[s + parsed.DATA]
    w[x + slots.DATA_LEN] = w[s + parsed.DATA_LEN]
    w[x + slots.END] = w[s + parsed.SEQ]
    return n


@hot
def fill_slot(w, n, nbytes, vnet, now):
    """Describe a frame of ``nbytes``, of which ``vnet`` are a virtio-net header, in the slot ``n`` just taken."""
    x = slot(w, n)
    w[x + slots.FRAME] = nbytes
    w[x + slots.VNET] = vnet
    w[x + slots.TIME] = now
    w[x + slots.BURST] = w[layout.COMMITTED] + 1
    w[x + slots.LIFE] = 0
    w[x + slots.FRAMES] = 1
    w[x + slots.PARTS] = 0
    w[x + slots.SIBLING] = 0
    w[x + slots.EMIT] = prefix(w, w[layout.OUTPUTS + ports.OUTDEV]) + nbytes


@hot
def link(w, row, c, which, n, ordered):
    """Put slot ``n`` into list ``which`` of connection ``c``: by life, then slots.SEQ where ``ordered``, else last."""
    x = slot(w, n)
    side = 1 if which == conns.SECONDARY else 0
    before = w[c + conns.TAIL + which]
    if ordered:
        while before != 0:
            y = slot(w, before - 1)
            if w[y + slots.LIFE] != w[x + slots.LIFE] or w[y + slots.FLAGS] & tcp.SYN:
                break
            if w[y + slots.FLAGS] & tcp.RST == 0 and diff(w[y + slots.SEQ], w[x + slots.SEQ]) <= 0:  # a RST comes last
                break
            before = w[y + slots.PREV]
    behind = w[c + conns.HEAD + which] if before == 0 else w[slot(w, before - 1) + slots.NEXT]
    w[x + slots.PREV] = before
    w[x + slots.NEXT] = behind
    w[x + slots.CONN] = c
    w[x + slots.LIST] = which
    if before == 0:
        put(w, c + conns.HEAD + which, n + 1)
    else:
        put(w, slot(w, before - 1) + slots.NEXT, n + 1)
    if behind == 0:
        put(w, c + conns.TAIL + which, n + 1)
    else:
        put(w, slot(w, behind - 1) + slots.PREV, n + 1)
    put(w, c + conns.COUNT + which, w[c + conns.COUNT + which] + 1)
    put(w, c + rows.PINNED, w[c + rows.PINNED] + 1)
    newest = w[scalar(row, scalars.NEWEST + side)]
    w[x + slots.EARLIER] = newest
    w[x + slots.LATER] = 0
    if newest == 0:
        w[scalar(row, scalars.OLDEST + side)] = n + 1
    else:
        put(w, slot(w, newest - 1) + slots.LATER, n + 1)
    w[scalar(row, scalars.NEWEST + side)] = n + 1
    count_held(w, row, side, w[x + slots.FRAMES])


@hot
def count_held(w, row, side, frames):
    """Count frames of ``side`` that are held from now on (below 0: no more)."""
    count(w, row, counters.HELD, frames)
    count(w, row, counters.HELD_SECONDARY if side else counters.HELD_PRIMARY, frames)


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
    c, which = w[x + slots.CONN], w[x + slots.LIST]
    side = 1 if which == conns.SECONDARY else 0
    before, behind = w[x + slots.PREV], w[x + slots.NEXT]
    if which == conns.PACKETS and w[c + conns.CURSOR] == n + 1:
        put(w, c + conns.CURSOR, behind)
    if before == 0:
        put(w, c + conns.HEAD + which, behind)
    else:
        put(w, slot(w, before - 1) + slots.NEXT, behind)
    if behind == 0:
        put(w, c + conns.TAIL + which, before)
    else:
        put(w, slot(w, behind - 1) + slots.PREV, before)
    put(w, c + conns.COUNT + which, w[c + conns.COUNT + which] - 1)
    put(w, c + rows.PINNED, w[c + rows.PINNED] - 1)
    earlier, later = w[x + slots.EARLIER], w[x + slots.LATER]
    if earlier == 0:
        w[scalar(row, scalars.OLDEST + side)] = later
    else:
        put(w, slot(w, earlier - 1) + slots.LATER, later)
    if later == 0:
        w[scalar(row, scalars.NEWEST + side)] = earlier
    else:
        put(w, slot(w, later - 1) + slots.EARLIER, earlier)
    count_held(w, row, side, -w[x + slots.FRAMES])
    return w[x + slots.FRAMES]


@hot
def give_back(w, row, n):
    """Give back slot ``n``, which is in no list, and its parts."""
    give_parts(w, row, n)
    give_slot(w, row, n)


@hot
def give_parts(w, row, n):
    """Give back the parts of slot ``n``, but not itself where it is one of them."""
    part = w[slot(w, n) + slots.PARTS]
    while part != 0:
        behind = w[slot(w, part - 1) + slots.SIBLING]
        if part != n + 1:
            give_slot(w, row, part - 1)
        part = behind


@hot
def fits_slot(w, row, n):
    """Whether outdev has room for all that slot ``n`` stands for."""
    return room(w, row, ports.OUTDEV) >= w[slot(w, n) + slots.EMIT]


@hot
def emit_slot(u8, w, row, n):
    """Send what slot ``n`` stands for to outdev; the caller has seen that it fits."""
    part = w[slot(w, n) + slots.PARTS]
    if part == 0:
        _emit_frame(u8, w, row, n)
    while part != 0:
        _emit_frame(u8, w, row, part - 1)
        part = w[slot(w, part - 1) + slots.SIBLING]


@hot
def _emit_frame(u8, w, row, n):
    x = slot(w, n)
    out = w[layout.OUTPUTS + ports.OUTDEV]
    at = index(w, out, w[row + layout.ROW_TAILS + ports.OUTDEV])
    lead = prefix(w, out)
    put_be32(u8, at, w[x + slots.FRAME])
    if lead == 8:
        put_be32(u8, at + 4, w[x + slots.VNET])
    copy(u8, at + lead, w[x + slots.BYTES], w[x + slots.FRAME])
    w[row + layout.ROW_TAILS + ports.OUTDEV] += lead + w[x + slots.FRAME]
    count(w, row, layout.PORTS + ports.OUTDEV, 1)
