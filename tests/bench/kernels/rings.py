"""Both ends of a ring, and a plain relay, as compiled code for the benchmarks.

The ring's header page has free words after the layout's own; the benchmark keeps its numbers there.  Each side has a
line of its own, so that the two processes share no cache line but the ring's.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, be64, copy, put_be32
from ring.hot import hot, kernel
from ring.kernels.frames import claim, commit, copy_record, index, poll, record_size, release, scan
from ring.kernels.ledger import begin, count, nothing_to_read, readable, room
from ring.kernels.ledger import commit as commit_burst

PAYLOAD = 64  # bytes of each frame                                            written before the fork
BURST = 65  # records a burst
LEFT = 66  # records still to produce
SENT = 80  # number of the next record                                         the producer's
TAKEN = 96  # number of the record that is expected next                        the consumer's
WRONG = 97  # records that were not the expected one
SOURCE_BYTE = 1024  # a frame that the producer copies from, up to 1,500 bytes
TAKE_BYTE = 2560  # where the consumer copies each frame to, as a queue's `pop` does


@hot
def put_number(u8, at, number):
    """The record's number, big-endian, at the start of its frame."""
    put_be32(u8, at, number >> 32)
    put_be32(u8, at + 4, number)


@kernel
def produce(u8, w, now):
    """One burst: copy numbered frames behind the tail, publish once; how many (0: no room)."""
    size = w[PAYLOAD]
    records = min(w[BURST], w[LEFT])
    at = claim(w, 0, records * (4 + size))
    if at < 0:
        return 0
    for _ in range(records):
        put_be32(u8, at, size)
        copy(u8, at + 4, SOURCE_BYTE, size)
        put_number(u8, at + 4, w[SENT])
        w[SENT] += 1
        at += 4 + size
    w[LEFT] -= records
    commit(w, 0, records * (4 + size))
    return records


@kernel
def consume(u8, w, now):
    """One burst: copy out the frames that are there, check each one's number, give the space back once; how many."""
    ready = poll(w, 0)
    if ready == 0:
        return 0
    start = w[layout.HEAD]
    position, end, records = start, start + ready, 0
    while position < end and records < w[BURST]:
        at = index(w, 0, position)
        length = be32(u8, at)
        copy(u8, TAKE_BYTE, at + 4, length)
        if be64(u8, TAKE_BYTE) != w[TAKEN]:
            w[WRONG] += 1
        w[TAKEN] += 1
        position += 4 + length
        records += 1
    release(w, 0, position - start)
    return records


@kernel
def relay(u8, w, now):
    """The least that a stage can be: each frame of input 0 copied to output 0 one by one, one commit a burst."""
    if nothing_to_read(w):
        return 0
    row = begin(w)
    source, target = w[layout.INPUTS], w[layout.OUTPUTS]
    position, frames = w[row + layout.ROW_HEADS], 0
    end = scan(u8, w, source, position, readable(w, row, 0), 256)[0]
    while position < end and room(w, row, 0) >= layout.MAX_RECORD:
        w[row + layout.ROW_TAILS] += copy_record(u8, w, source, position, target, w[row + layout.ROW_TAILS])
        position += record_size(u8, w, source, position)
        frames += 1
    w[row + layout.ROW_HEADS] = position
    count(w, row, 0, frames)
    count(w, row, layout.PORTS, frames)
    return commit_burst(w, row, now, frames)
