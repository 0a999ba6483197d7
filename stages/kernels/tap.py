"""netdev-tap: frames between a TAP device and the rings, one system call a frame, one kernel call a burst."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EBADFD, EINTR, EIO, ENODEV

from ring.atomics import be32, copy, put_be32, put_byte
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix, scan
from ring.kernels.ledger import begin, blocked, commit, count, readable, room
from ring.layout import BLOCKED, CMD_DRAIN, MAX_FRAME, P_INPUTS, P_OUTPUTS, PORTS, R_HEADS, R_TAILS, SIZE
from stages.kernels.system import sys_read, sys_write
from stages.layout.tap import (
    BURST,
    P_FD,
    P_HEADER,
    P_MEMORY,
    RECEIVE,
    REFUSED,
    SEND,
    SENT,
    X_ERROR,
    X_FRAME,
    X_ROW,
    X_WANTS_OUT,
    X_WORK,
)


@hot
def write_frame(u8, w, at, header, length):
    """Give the device ``length`` bytes at ``at``, of which ``header`` are a virtio-net header; write's result."""
    wanted = w[P_HEADER]
    if wanted == header:
        return sys_write(u8, w[P_FD], at, length)
    if wanted == 0:
        return sys_write(u8, w[P_FD], at + header, length - header)
    # Another header: what both have in common stands first (10 bytes), the rest is zero.
    out = int((w[P_MEMORY] + X_FRAME) * 8)
    kept = min(header, wanted)
    for i in range(wanted):
        put_byte(u8, out + i, 0)
    copy(u8, out, at, kept)
    copy(u8, out + wanted, at + header, length - header)
    return sys_write(u8, w[P_FD], out, wanted + length - header)


@hot
def tap_send(u8, w, row):
    """Frames from the ring to the device; the number that left the ring."""
    x, r = w[P_MEMORY], w[P_INPUTS + SEND]
    position, end = w[row + R_HEADS + SEND], readable(w, row, SEND)
    if r == 0 or position == end:
        return 0
    end = scan(u8, w, r, position, end, BURST)[0]
    lead = prefix(w, r)
    sent = refused = 0
    while position < end:
        at = index(w, r, position)
        length = be32(u8, at)
        header = be32(u8, at + 4) if lead == 8 else 0
        result = write_frame(u8, w, at + lead, header, length)
        while result == -EINTR:
            result = write_frame(u8, w, at + lead, header, length)
        if result == -EAGAIN:
            w[x + X_WANTS_OUT] = 1
            break
        if result == -EBADFD or result == -EBADF or result == -ENODEV:
            w[x + X_ERROR] = -result
            break
        if result < 0:
            refused += 1  # EIO: the link is down; EINVAL: shorter than Ethernet; ENOBUFS: no memory now
        else:
            sent += 1
        position += lead + length
    w[row + R_HEADS + SEND] = position
    count(w, row, SEND, sent + refused)
    count(w, row, SENT, sent)
    count(w, row, REFUSED, refused)
    return sent + refused


@hot
def tap_receive(u8, w, row):
    """Frames from the device straight into the ring; their number."""
    x, r = w[P_MEMORY], w[P_OUTPUTS + RECEIVE]
    if r == 0:
        return 0
    lead = prefix(w, r)
    most = min(MAX_FRAME, w[r + SIZE] - lead)
    frames = 0
    while frames < BURST:
        if room(w, row, RECEIVE) < lead + most:
            blocked(w, RECEIVE)
            break
        at = index(w, r, w[row + R_TAILS + RECEIVE])
        length = sys_read(u8, w[P_FD], at + lead, most)
        if length == -EINTR:
            continue
        if length <= 0:
            if length == -EBADFD or length == -EBADF or length == -EIO or length == -ENODEV:
                w[x + X_ERROR] = -length
            break
        put_be32(u8, at, length)
        if lead == 8:
            put_be32(u8, at + 4, w[P_HEADER])
        w[row + R_TAILS + RECEIVE] += lead + length
        frames += 1
    count(w, row, PORTS + RECEIVE, frames)
    return frames


@kernel
def tap_open(u8, w, now):
    """A burst up to its commit, so that it can be recorded before; the work, 0: nothing to commit."""
    x = w[P_MEMORY]
    w[BLOCKED] = 0
    w[x + X_WANTS_OUT] = 0
    row = begin(w)
    work = tap_send(u8, w, row)
    if w[CMD_DRAIN] == 0:
        work += tap_receive(u8, w, row)
    w[x + X_ROW] = row
    w[x + X_WORK] = work
    return work


@kernel
def tap_commit(u8, w, now):
    """Commit the burst that `tap_open` left open."""
    x = w[P_MEMORY]
    return commit(w, w[x + X_ROW], now, w[x + X_WORK])


@kernel
def tap_burst(u8, w, now):
    """One burst of each direction, where nothing is recorded."""
    if tap_open(u8, w, now) == 0:
        return 0
    return tap_commit(u8, w, now)
