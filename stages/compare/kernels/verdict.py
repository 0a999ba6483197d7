"""What follows from a difference: a count, a request for a checkpoint, and the connection is compared no more."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import count, put, scalar
from stages.compare.kernels.checkpoint_requests import ask, count_difference
from stages.compare.layout.words import (
    C_FLAGS,
    C_VERDICT,
    C_WORK_NEXT,
    CF_DIVERGED,
    CF_PASS,
    CF_WORK,
    DIVERGED_PAYLOAD,
    DIVERGENCES,
    O_LOCAL,
    R_PAYLOAD,
    SC_WORK,
)
from stages.packets.layout.packet import TCP
from stages.packets.layout.table import R_PINNED


@hot
def queue_work(w, row, c):
    """Put a connection on the work list: it can go on, but for want of room or of undo log it did not."""
    if w[c + C_FLAGS] & CF_WORK == 0:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_WORK)
        put(w, c + R_PINNED, w[c + R_PINNED] + 1)  # a row on the list is not evicted, even with nothing held
        put(w, c + C_WORK_NEXT, w[scalar(row, SC_WORK)])
        w[scalar(row, SC_WORK)] = c


@hot
def differs(u8, w, row, reason, now):
    """Count a difference and ask for a checkpoint."""
    count(w, row, DIVERGENCES, 1)
    count(w, row, DIVERGED_PAYLOAD + reason - R_PAYLOAD, 1)
    count_difference(u8, w, row, now)
    ask(u8, w, row, now)


@hot
def diverge(u8, w, row, c, reason, now):
    """Count a difference, ask for a checkpoint, and stop comparing the connection until one comes.

    Where nobody makes checkpoints (checkpoint = "local") a stream passes uncompared from here on.
    """
    differs(u8, w, row, reason, now)
    if w[O_LOCAL] == 0:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_DIVERGED)
    elif w[c + C_VERDICT] == TCP:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_PASS)
        queue_work(w, row, c)
