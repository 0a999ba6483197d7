"""The gate of a secondary: nothing of its guest goes to the network before a failover was announced.

Its MAC and its addresses are the primary's: one frame of it, and a switch sends the clients' packets to the wrong host.
So the network's side of a netdev with a rewriter is closed by itself, whatever filters, links and statuses do.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot
from ring.kernels.frames import scan
from ring.kernels.ledger import count, readable

_MANY = 1 << 40  # no limit: nothing is copied


@hot
def closed(w, option):
    """Whether the gate that the word ``option`` asks for (1: there is one) has not been opened yet."""
    return w[option] == 1 and load_acquire(w, layout.CMD_FAILOVER) == 0  # partner: the supervisor


@hot
def waiting(u8, w, row, i):
    """Position behind the whole frames of input ``i``, and their number."""
    r = w[layout.INPUTS + i]
    if r == 0:
        return w[row + layout.ROW_HEADS + i], 0
    position, frames, _bad = scan(u8, w, r, w[row + layout.ROW_HEADS + i], readable(w, row, i), _MANY)
    return position, frames


@hot
def discard(u8, w, row, i, counter):
    """Take all whole frames of input ``i`` and count them as dropped; their number."""
    position, frames = waiting(u8, w, row, i)
    w[row + layout.ROW_HEADS + i] = position
    count(w, row, i, frames)
    count(w, row, counter, frames)
    return frames
