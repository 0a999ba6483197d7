"""Endpoints on stream sockets.

A record is a chardev frame, so bytes are received straight into the ring and sent straight from it; only the length
words are looked at, to find the last whole frame.  What a socket has taken or given cannot be rolled back: a process
killed between a system call and its commit loses its connection too, and sends those frames again on the next one.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR

from ring import layout
from ring.atomics import be32, store_release
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix, scan
from ring.kernels.ledger import begin, blocked, commit, count, readable, room, true_row
from stages.kind import OWN_COUNTERS
from stages.packets.kernels.system_calls import sys_read, sys_write
from stages.socket.layout import (
    ARRIVED,
    BAD,
    BURST_BYTES,
    ENDED,
    FAILED,
    FLAG_SHIFT,
    O_BAD,
    O_ERRNO,
    O_FD,
    O_FILLED,
    O_MUTE,
    O_SENT,
    O_TALLY,
    OWN,
    RECEIVE,
    RECEIVED_BYTES,
    SCRATCH,
    SCRATCH_WORDS,
    SEND,
    SENT_BYTES,
    SHORT,
    UNREAD_BYTES,
)

_MANY = 1 << 40  # no limit of frames: BURST_BYTES limits the burst
_OWN = len(OWN)
_UNREAD = O_TALLY + UNREAD_BYTES - OWN_COUNTERS


@hot
def receive_bytes(u8, w, row):
    """One recv into the free space beyond what was received; flags."""
    r = w[layout.OUTPUTS + RECEIVE]
    if r == 0:
        got = sys_read(u8, w[O_FD], SCRATCH * 8, SCRATCH_WORDS * 8)
        if got > 0:
            w[_UNREAD] += got
            return 0
    else:
        space = w[row + layout.ROW_TAILS + RECEIVE] + room(w, row, RECEIVE) - w[O_FILLED]
        if space <= 0:
            blocked(w, RECEIVE)
            return 0
        got = sys_read(u8, w[O_FD], index(w, r, w[O_FILLED]), min(space, BURST_BYTES))
        if got > 0:
            w[O_FILLED] += got
            return ARRIVED
    if got == 0:
        return ENDED
    if -got == EAGAIN or -got == EINTR:
        return 0
    w[O_ERRNO] = -got
    return FAILED


@hot
def send_bytes(u8, w, row):
    """One send of what is published beyond what was sent; flags."""
    r = w[layout.INPUTS + SEND]
    if r == 0 or w[O_MUTE] != 0:
        return 0
    left = min(readable(w, row, SEND) - w[O_SENT], BURST_BYTES)
    if left <= 0:
        return 0
    put = sys_write(u8, w[O_FD], index(w, r, w[O_SENT]), left)
    if put >= 0:
        w[O_SENT] += put
        return SHORT if put < left else 0
    if -put == EAGAIN or -put == EINTR:
        return SHORT
    w[O_MUTE] = -put
    return 0


@hot
def impossible(u8, w, r, position, bad):
    """The length of the unfinished frame at ``position`` of ring ``r`` if it can never be finished, or -1."""
    if bad >= 0:
        return bad
    if w[O_FILLED] - position < prefix(w, r):
        return -1
    length = be32(u8, index(w, r, position))
    return length if prefix(w, r) + length > w[r + layout.SIZE] else -1


@hot
def move_bytes(u8, w, row):
    """Receive and send once; flags."""
    flags = 0
    if w[layout.CMD_DRAIN] == 0:
        flags |= receive_bytes(u8, w, row)
    flags |= send_bytes(u8, w, row)
    if w[O_MUTE] != 0 and flags == 0 and w[layout.BLOCKED] == 0:
        w[O_ERRNO] = w[O_MUTE]  # what the peer had sent before it went is read by now
        flags = FAILED
    return flags


@kernel
def link_cycle(u8, w, now):
    """One duty cycle of a connection: one recv, one send, one commit; ``work | bells << 32 | flags << FLAG_SHIFT``."""
    w[layout.BLOCKED] = 0
    row = true_row(w)
    flags, stop, head, taken, given, result = 0, 0, 0, 0, 0, 0
    if w[O_FD] >= 0:
        filled, sent = w[O_FILLED], w[O_SENT]
        flags = move_bytes(u8, w, row)
        if w[O_FILLED] != filled:
            r, result = w[layout.OUTPUTS + RECEIVE], 1
            stop, taken, bad = scan(u8, w, r, w[row + layout.ROW_TAILS + RECEIVE], w[O_FILLED], _MANY)
            w[O_BAD] = impossible(u8, w, r, stop, bad)
            if w[O_BAD] >= 0:
                flags |= BAD
        if w[O_SENT] != sent:
            result = 1
            head, given, bad = scan(u8, w, w[layout.INPUTS + SEND], w[row + layout.ROW_HEADS + SEND], w[O_SENT], _MANY)
    unread = w[_UNREAD]
    if taken + given + unread > 0:
        row = begin(w)
        count(w, row, UNREAD_BYTES, unread)
        if taken > 0:
            count(w, row, layout.PORTS + RECEIVE, taken)
            count(w, row, RECEIVED_BYTES, stop - w[row + layout.ROW_TAILS + RECEIVE])
            w[row + layout.ROW_TAILS + RECEIVE] = stop
        if given > 0:
            count(w, row, SEND, given)
            count(w, row, SENT_BYTES, head - w[row + layout.ROW_HEADS + SEND])
            w[row + layout.ROW_HEADS + SEND] = head
        result = commit(w, row, now, max(taken + given, 1))
        w[_UNREAD] = 0
    return result | flags << FLAG_SHIFT


@hot
def turn(w, i, up):
    """Make link word ``i`` odd where ``up``, else even, by counting."""
    if w[i] & 1 != up:
        store_release(w, i, w[i] + 1)  # partner: `forward.connected`, and the compare


@kernel
def link_change(u8, w, now):
    """A connection began or ended (O_FD): positions back to frame boundaries, tallies counted, link words turned."""
    row = begin(w)
    for i in range(_OWN):
        count(w, row, OWN_COUNTERS + i, w[O_TALLY + i])
    result = commit(w, row, now, 1)
    for i in range(_OWN):
        w[O_TALLY + i] = 0
    w[O_FILLED] = w[row + layout.ROW_TAILS + RECEIVE]
    w[O_SENT] = w[row + layout.ROW_HEADS + SEND]
    w[O_MUTE] = w[O_ERRNO] = 0
    up = 1 if w[O_FD] >= 0 else 0
    if w[layout.OUTPUTS + RECEIVE] != 0:
        turn(w, w[layout.OUTPUTS + RECEIVE] + layout.P_LINK, up)
    if w[layout.INPUTS + SEND] != 0:
        turn(w, w[layout.INPUTS + SEND] + layout.C_LINK, up)
    return result
