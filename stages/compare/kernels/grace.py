"""The grace list: connections whose datagrams differ, by the time since when; the longest stands first."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import put, scalar
from stages.compare.layout import conns, scalars
from stages.packets.layout import transports


@hot
def watch(w, row, c, now):
    """Keep the connection on the grace list while both sides hold packets: none of them are equal."""
    both = (
        w[c + conns.HEAD + conns.PACKETS] != 0
        and w[c + conns.HEAD + conns.SECONDARY] != 0
        and w[c + conns.FLAGS] & conns.CF_DIVERGED == 0
    )
    # Unfinished datagrams, and those that a rule lets pass, are compared with nothing.
    both = both and w[c + conns.TRANSPORT] != transports.FRAGMENT and w[c + conns.FLAGS] & conns.PASSES == 0
    if both and w[c + conns.GRACE_SINCE] == 0:
        join(w, row, c, now)
    elif not both:
        leave(w, row, c)


@hot
def join(w, row, c, since):
    """Put the connection at the end of the grace list, as one that has differed since ``since``."""
    last = w[scalar(row, scalars.GRACE_LAST)]
    put(w, c + conns.GRACE_SINCE, since)
    put(w, c + conns.GRACE_PREV, last)
    put(w, c + conns.GRACE_NEXT, 0)
    if last == 0:
        w[scalar(row, scalars.GRACE_FIRST)] = c
    else:
        put(w, last + conns.GRACE_NEXT, c)
    w[scalar(row, scalars.GRACE_LAST)] = c


@hot
def leave(w, row, c):
    """Take the connection off the grace list, if it is there."""
    if w[c + conns.GRACE_SINCE] == 0:
        return
    before, behind = w[c + conns.GRACE_PREV], w[c + conns.GRACE_NEXT]
    put(w, c + conns.GRACE_SINCE, 0)
    if before == 0:
        w[scalar(row, scalars.GRACE_FIRST)] = behind
    else:
        put(w, before + conns.GRACE_NEXT, behind)
    if behind == 0:
        w[scalar(row, scalars.GRACE_LAST)] = before
    else:
        put(w, behind + conns.GRACE_PREV, before)
