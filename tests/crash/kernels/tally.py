"""A stage for tests that changes its tables as hard as it can: the ledger's rules, all in one small kernel."""

from __future__ import annotations

from ring import layout
from ring.hot import hot, kernel
from ring.kernels.frames import copy_record, record_size, scan
from ring.kernels.ledger import begin, blocked, commit, count, nothing_to_read, put, readable, room, scalar, undo_left
from tests.crash.tally import CELLS, PUTS, TABLE


@hot
def note(w, row, size):
    """Three puts a frame, two of them on one word: a chain that shows every repetition and change of order."""
    cell = TABLE + size % CELLS
    put(w, cell, w[cell] + 1)
    put(w, TABLE + CELLS, (int(w[TABLE + CELLS]) * 31 + size) & 0xFFFFFFFF)
    put(w, TABLE + CELLS, w[TABLE + CELLS] ^ w[cell])
    w[scalar(row, 0)] = w[scalar(row, 0)] + size


@kernel
def tally_burst(u8, w, now):
    """Pass up to three frames on, noting each in the table."""
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    source, target = w[layout.INPUTS], w[layout.OUTPUTS]
    position, end, frames = w[row + layout.ROW_HEADS], readable(w, row, 0), 0
    while frames < 3 and undo_left(w) >= PUTS and scan(u8, w, source, position, end, 1)[1] == 1:
        size = record_size(u8, w, source, position)
        if room(w, row, 0) < size:
            blocked(w, 0)
            break
        w[row + layout.ROW_TAILS] += copy_record(u8, w, source, position, target, w[row + layout.ROW_TAILS])
        note(w, row, size)
        position += size
        frames += 1
    if frames == 0:
        return 0
    w[row + layout.ROW_HEADS] = position
    count(w, row, 0, frames)
    count(w, row, layout.PORTS, frames)
    return commit(w, row, now, frames)
