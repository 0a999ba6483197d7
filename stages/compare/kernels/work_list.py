"""The work list: connections that can go on as soon as outdev, or the undo log, has room."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import put, scalar
from stages.compare.layout import conns, scalars
from stages.packets.layout import rows


@hot
def queue_work(w, row, c):
    """Put a connection on the work list: it can go on, but for want of room or of undo log it did not."""
    if w[c + conns.FLAGS] & conns.CF_WORK == 0:
        put(w, c + conns.FLAGS, w[c + conns.FLAGS] | conns.CF_WORK)
        put(w, c + rows.PINNED, w[c + rows.PINNED] + 1)  # a row on the list is not evicted, even with nothing held
        put(w, c + conns.WORK_NEXT, w[scalar(row, scalars.WORK)])
        w[scalar(row, scalars.WORK)] = c
