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
from stages.packets.kernels.gate import closed, waiting
from stages.packets.kernels.system_calls import sys_read, sys_write
from stages.socket.layout import counters, memory, options, outcomes, ports

_MANY = 1 << 40  # no limit of frames: BURST_BYTES limits the burst


@hot
def receive_bytes(u8, w, row):
    """One recv into the free space beyond what was received; flags."""
    r = w[layout.OUTPUTS + ports.RECEIVE]
    if r == 0:
        got = sys_read(u8, w[options.FD], memory.SCRATCH * 8, memory.SCRATCH_WORDS * 8)
        if got > 0:
            w[options.UNREAD] += got
            return outcomes.UNREAD
    else:
        space = w[row + layout.ROW_TAILS + ports.RECEIVE] + room(w, row, ports.RECEIVE) - w[options.FILLED]
        if space <= 0:
            blocked(w, ports.RECEIVE)
            return 0
        got = sys_read(u8, w[options.FD], index(w, r, w[options.FILLED]), min(space, memory.BURST_BYTES))
        if got > 0:
            w[options.FILLED] += got
            return outcomes.ARRIVED
    if got == 0:
        return outcomes.ENDED
    if -got == EAGAIN or -got == EINTR:
        return 0
    w[options.ERRNO] = -got
    return outcomes.FAILED


@hot
def send_bytes(u8, w, row):
    """One send of what is published beyond what was sent; flags."""
    r = w[layout.INPUTS + ports.SEND]
    if r == 0 or w[options.MUTE] != 0 or closed(w, options.GATED):
        return 0
    left = min(readable(w, row, ports.SEND) - w[options.SENT], memory.BURST_BYTES)
    if left <= 0:
        return 0
    put = sys_write(u8, w[options.FD], index(w, r, w[options.SENT]), left)
    if put >= 0:
        w[options.SENT] += put
        return outcomes.SHORT if put < left else 0
    if -put == EAGAIN or -put == EINTR:
        return outcomes.SHORT
    w[options.MUTE] = -put
    return 0


@hot
def impossible(u8, w, r, position, bad):
    """The length of the unfinished frame at ``position`` of ring ``r`` if it can never be finished, or -1."""
    if bad >= 0:
        return bad
    if w[options.FILLED] - position < prefix(w, r):
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
    if w[options.MUTE] != 0 and flags == 0 and w[layout.BLOCKED] == 0:
        w[options.ERRNO] = w[options.MUTE]  # what the peer had sent before it went is read by now
        flags = outcomes.FAILED
    return flags


@kernel
def link_cycle(u8, w, now):
    """One duty cycle of a connection: one recv, one send, one commit; ``work | bells << 32 | flags << SHIFT``."""
    w[layout.BLOCKED] = 0
    row = true_row(w)
    flags, stop, head, taken, given, dropped, result = 0, 0, 0, 0, 0, 0, 0
    if w[options.FD] >= 0:
        filled, sent = w[options.FILLED], w[options.SENT]
        flags = move_bytes(u8, w, row)
        if w[options.FILLED] != filled:
            r, result = w[layout.OUTPUTS + ports.RECEIVE], 1
            stop, taken, bad = scan(u8, w, r, w[row + layout.ROW_TAILS + ports.RECEIVE], w[options.FILLED], _MANY)
            w[options.BAD_LENGTH] = impossible(u8, w, r, stop, bad)
            if w[options.BAD_LENGTH] >= 0:
                flags |= outcomes.BAD
        if w[options.SENT] != sent:
            result = 1
            head, given, bad = scan(
                u8, w, w[layout.INPUTS + ports.SEND], w[row + layout.ROW_HEADS + ports.SEND], w[options.SENT], _MANY
            )
    if closed(w, options.GATED):
        head, dropped = waiting(u8, w, row, ports.SEND)
    unread = w[options.UNREAD]
    if taken + given + dropped + unread > 0:
        row = begin(w)
        if unread > 0:
            count(w, row, counters.UNREAD_BYTES, unread)
            w[row + layout.ROW_COUNTERS + counters.UNREAD_PEER] = 1
        if taken > 0:
            count(w, row, layout.PORTS + ports.RECEIVE, taken)
            count(w, row, counters.RECEIVED_BYTES, stop - w[row + layout.ROW_TAILS + ports.RECEIVE])
            w[row + layout.ROW_TAILS + ports.RECEIVE] = stop
        if given > 0:
            count(w, row, ports.SEND, given)
            count(w, row, counters.SENT_BYTES, head - w[row + layout.ROW_HEADS + ports.SEND])
            w[row + layout.ROW_HEADS + ports.SEND] = head
        if dropped > 0:
            count(w, row, ports.SEND, dropped)
            count(w, row, counters.DROPPED_BEFORE_FAILOVER, dropped)
            w[row + layout.ROW_HEADS + ports.SEND] = w[options.SENT] = head
        result = commit(w, row, now, max(taken + given + dropped, 1))
        w[options.UNREAD] = 0
    return result | flags << outcomes.SHIFT


@hot
def turn(w, i, up):
    """Make link word ``i`` odd where ``up``, else even, by counting."""
    if w[i] & 1 != up:
        store_release(w, i, w[i] + 1)  # partner: `forward.connected`, and the compare


@kernel
def link_change(u8, w, now):
    """A connection began or ended: positions go back to frame boundaries, tallies are counted, link words turned."""
    row = begin(w)
    for i in range(options.TALLIES):
        count(w, row, layout.OWN_COUNTERS + i, w[options.TALLY + i])
    w[row + layout.ROW_COUNTERS + counters.UNREAD_PEER] = 0
    result = commit(w, row, now, 1)
    for i in range(options.TALLIES):
        w[options.TALLY + i] = 0
    w[options.FILLED] = w[row + layout.ROW_TAILS + ports.RECEIVE]
    w[options.SENT] = w[row + layout.ROW_HEADS + ports.SEND]
    w[options.MUTE] = w[options.ERRNO] = 0
    up = 1 if w[options.FD] >= 0 else 0
    offered = w[options.OFFERED] if up == 0 else 0
    if w[layout.OUTPUTS + ports.RECEIVE] != 0:
        turn(w, w[layout.OUTPUTS + ports.RECEIVE] + layout.P_LINK, up)
        store_release(w, w[layout.OUTPUTS + ports.RECEIVE] + layout.P_OFFERED, offered)  # partner: the compare
    if w[layout.INPUTS + ports.SEND] != 0:
        turn(w, w[layout.INPUTS + ports.SEND] + layout.C_LINK, up | offered)  # who sends, sends to the newest of them
    return result
