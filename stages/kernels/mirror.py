"""filter-mirror: every packet goes on unchanged, and a copy of it to outdev."""

from __future__ import annotations

from ring.atomics import copy, load_acquire
from ring.hot import hot, kernel
from ring.kernels.frames import copied_size, copy_record, index, record_size, scan
from ring.kernels.ledger import begin, blocked, commit, count, nothing_to_read, readable, room
from ring.layout import (
    BLOCKED,
    C_LINK,
    CMD_STATUS,
    P_INPUTS,
    P_OUTPUTS,
    PORTS,
    R_HEADS,
    R_TAILS,
    VNET,
)
from stages.layout.mirror import NO_PEER, OUTDEV, RX_IN, RX_OUT, TX_IN, TX_OUT

_BURST = 256


@hot
def mirror_direction(u8, w, row, i, o):
    """Pass a burst from input ``i`` to output ``o`` and a copy of it to outdev; the number of frames."""
    source, target, copies = w[P_INPUTS + i], w[P_OUTPUTS + o], w[P_OUTPUTS + OUTDEV]
    start, end = w[row + R_HEADS + i], readable(w, row, i)
    if source == 0 or end == start:
        return 0
    mirroring = copies != 0 and w[CMD_STATUS] == 1
    connected = mirroring and load_acquire(w, copies + C_LINK) & 1 == 1  # partner: the chardev's process
    here = min(end, start + room(w, row, o))
    if connected and w[copies + VNET] == w[source + VNET]:
        here = min(here, start + room(w, row, OUTDEV))
    position, frames, _bad = scan(u8, w, source, start, here, _BURST)
    if connected and w[copies + VNET] != w[source + VNET]:
        # Framings differ, so sizes do: copy one by one, as far as outdev has room.
        stop, position, frames = position, start, 0
        while position < stop and copied_size(u8, w, source, position, copies) <= room(w, row, OUTDEV):
            w[row + R_TAILS + OUTDEV] += copy_record(
                u8, w, source, position, copies, w[row + R_TAILS + OUTDEV]
            )
            position += record_size(u8, w, source, position)
            frames += 1
    elif connected:
        copy(u8, index(w, copies, w[row + R_TAILS + OUTDEV]), index(w, source, start), position - start)
        w[row + R_TAILS + OUTDEV] += position - start
    if frames == 0:
        blocked(w, o)
        if connected:
            blocked(w, OUTDEV)
        return 0
    copy(u8, index(w, target, w[row + R_TAILS + o]), index(w, source, start), position - start)
    w[row + R_TAILS + o] += position - start
    w[row + R_HEADS + i] = position
    count(w, row, i, frames)
    count(w, row, PORTS + o, frames)
    if connected:
        count(w, row, PORTS + OUTDEV, frames)
    elif mirroring:
        count(w, row, NO_PEER, frames)
    return frames


@kernel
def mirror_burst(u8, w, now):
    """One burst of each direction."""
    w[BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    work = mirror_direction(u8, w, row, TX_IN, TX_OUT) + mirror_direction(u8, w, row, RX_IN, RX_OUT)
    if work == 0:
        return 0
    return commit(w, row, now, work)
