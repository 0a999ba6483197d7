"""What follows from a difference: a count, a request for a checkpoint, and the connection is compared no more."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import count, put
from stages.compare.kernels.checkpoint_requests import ask, count_difference, goes_on_alone
from stages.compare.kernels.work_list import queue_work
from stages.compare.layout import conns, counters, reasons
from stages.packets.layout import transports


@hot
def differs(u8, w, row, reason, now):
    """Count a difference and ask for a checkpoint."""
    count(w, row, counters.DIVERGENCES, 1)
    count(w, row, counters.DIVERGED_PAYLOAD + reason - reasons.PAYLOAD, 1)
    count_difference(u8, w, row, now)
    ask(u8, w, row, now)


@hot
def diverge(u8, w, row, c, reason, now):
    """Count a difference, ask for a checkpoint, and stop comparing the connection until one comes.

    Where nobody makes checkpoints (`goes_on_alone`) a stream passes uncompared from here on.
    """
    differs(u8, w, row, reason, now)
    if goes_on_alone(w, row):
        go_on_uncompared(w, row, c)
    else:
        put(w, c + conns.FLAGS, w[c + conns.FLAGS] | conns.CF_DIVERGED)


@hot
def go_on_uncompared(w, row, c):
    """A connection that differed waits for no checkpoint: a stream passes, of datagrams the next ones are compared."""
    state = w[c + conns.FLAGS] & ~conns.CF_DIVERGED
    if w[c + conns.TRANSPORT] == transports.TCP:
        put(w, c + conns.FLAGS, state | conns.CF_PASS)
        queue_work(w, row, c)
    elif state != w[c + conns.FLAGS]:
        put(w, c + conns.FLAGS, state)
