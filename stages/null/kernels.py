"""netdev-null: swallows what it is sent."""

from __future__ import annotations

from ring import layout
from ring.hot import kernel
from ring.kernels.frames import scan
from ring.kernels.ledger import begin, commit, count, nothing_to_read, readable
from stages.null import layout as own

_MANY = 1 << 40  # no limit: nothing is copied


@kernel
def null_burst(u8, w, now):
    """Swallow everything that is there."""
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    start = w[row + layout.ROW_HEADS + own.SEND]
    stop, frames, _bad = scan(u8, w, w[layout.INPUTS + own.SEND], start, readable(w, row, own.SEND), _MANY)
    if frames == 0:
        return 0
    w[row + layout.ROW_HEADS + own.SEND] = stop
    count(w, row, own.SEND, frames)
    count(w, row, own.SWALLOWED_BYTES, stop - start)
    return commit(w, row, now, frames)
