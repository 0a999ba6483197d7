"""The row of a packet's connection in the compare: found or made, and brought up to date."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import count, put, scalar, undo_left
from stages.compare.kernels.grace import leave
from stages.compare.kernels.rules import classify, passes, stale
from stages.compare.kernels.syn import catch_up, rejoin
from stages.compare.kernels.work_list import queue_work
from stages.compare.layout import conns, counters, memory, options, scalars
from stages.packets.kernels.table import find, insert, remove, remove_cost, touch, victim
from stages.packets.layout import rows, transports


@hot
def connection(w, row, side, s, transport, now):
    """Row of the connection whose key is at ``s``, a new one if need be; 0 while there is none to be had."""
    t = w[options.TABLE]
    c = find(w, t, s)
    if c < 0:
        c = insert(w, t, s, now)
        if c < 0:
            old = victim(w, t)
            if old < 0:
                w[options.STUCK] |= 1 << side
                return 0
            if undo_left(w) < remove_cost(w, t, old) + memory.RESERVE // 2:
                return 0  # a long run of buckets: in the next burst, with an empty log
            leave(w, row, old)
            remove(w, t, old)
            count(w, row, counters.CONNECTIONS, -1)
            count(w, row, counters.CONNECTIONS_EVICTED, 1)
            c = insert(w, t, s, now)
        put(w, c + conns.TRANSPORT, transport)
        count(w, row, counters.CONNECTIONS, 1)
        count(w, row, counters.CONNECTIONS_OPENED, 1)
        put(w, c + conns.GENERATION, w[scalar(row, scalars.GENERATION)])
    elif w[c + conns.GENERATION] != w[scalar(row, scalars.GENERATION)]:
        catch_up(w, row, c)
    if stale(w, row, c):
        reclassify(w, row, c)
    touch(w, c, now)
    return c


@hot
def reclassify(w, row, c):
    """Find a connection's rule again: where it passes now, what is held leaves; where no longer, it is compared."""
    classify(w, row, c)
    if w[c + conns.TRANSPORT] == transports.FRAGMENT:
        return  # a rule is for whole datagrams, which have ports
    state = w[c + conns.FLAGS]
    if passes(w, c):
        if state & conns.CF_RULE == 0:
            put(w, c + conns.FLAGS, state | conns.CF_RULE)
            if w[c + rows.PINNED] != 0:
                leave(w, row, c)
                queue_work(w, row, c)
    elif state & conns.CF_RULE:
        put(w, c + conns.FLAGS, state & ~conns.CF_RULE)
        # Else it goes on passing, as it did before the rule.
        if w[c + conns.TRANSPORT] == transports.TCP and state & conns.CF_PASS == 0:
            rejoin(w, c)
