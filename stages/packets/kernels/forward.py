"""Whole frames from one ring to one or two others: what filters share.

Where source and target have the same framing, a burst is one memcpy; where one has V and the other has not, records are
copied one by one.  Rings are larger than the largest record (the config sees to it), so a frame always fits some time.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import copy, load_acquire
from ring.hot import hot
from ring.kernels.frames import copied_size, copy_record, index, record_size, scan
from ring.kernels.ledger import blocked, count, readable, room

BURST = 256


@hot
def connected(w, o):
    """Whether output ``o`` exists and the outside peer behind it is there."""
    r = w[layout.OUTPUTS + o]
    return r != 0 and load_acquire(w, r + layout.C_LINK) & 1 == 1  # partner: the chardev's process


@hot
def fitting(u8, w, row, source, start, end, o):
    """How far whole frames of [start, end) fit into output ``o``, a burst at most: (position, frames)."""
    target, space = w[layout.OUTPUTS + o], room(w, row, o)
    if w[target + layout.VNET] == w[source + layout.VNET]:
        position, frames, _bad = scan(u8, w, source, start, min(end, start + space), BURST)
        return position, frames
    position, frames = start, 0
    stop, most, _bad = scan(u8, w, source, start, end, BURST)
    while frames < most and position < stop:
        size = copied_size(u8, w, source, position, target)
        if size > space:
            break
        space -= size
        position += record_size(u8, w, source, position)
        frames += 1
    return position, frames


@hot
def copy_frames(u8, w, row, source, start, stop, frames, o):
    """Write the ``frames`` frames of [start, stop) to output ``o`` and count them; there is room (`fitting`)."""
    target, tail = w[layout.OUTPUTS + o], w[row + layout.ROW_TAILS + o]
    if w[target + layout.VNET] == w[source + layout.VNET]:
        copy(u8, index(w, target, tail), index(w, source, start), stop - start)
        tail += stop - start
    else:
        position = start
        while position < stop:
            tail += copy_record(u8, w, source, position, target, tail)
            position += record_size(u8, w, source, position)
    w[row + layout.ROW_TAILS + o] = tail
    count(w, row, layout.PORTS + o, frames)


@hot
def forward(u8, w, row, i, first, second):
    """Move one burst from input ``i`` to output ``first`` and, unless ``second`` is -1, to ``second`` too.

    A frame goes to both or to neither: each must have room.  Returns the number of frames.
    """
    source = w[layout.INPUTS + i]
    start, end = w[row + layout.ROW_HEADS + i], readable(w, row, i)
    if source == 0 or end == start or w[layout.OUTPUTS + first] == 0:
        return 0
    stop, frames = fitting(u8, w, row, source, start, end, first)
    if frames == 0:
        blocked(w, first)
        return 0
    if second >= 0:
        stop, frames = fitting(u8, w, row, source, start, stop, second)
        if frames == 0:
            blocked(w, second)
            return 0
        copy_frames(u8, w, row, source, start, stop, frames, second)
    copy_frames(u8, w, row, source, start, stop, frames, first)
    w[row + layout.ROW_HEADS + i] = stop
    count(w, row, i, frames)
    return frames
