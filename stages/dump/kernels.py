"""filter-dump: a burst goes on in both directions; it counts once its copies are in the file."""

from __future__ import annotations

from ring import layout as ring
from ring.hot import kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.dump import layout
from stages.packets.kernels.forward import forward


@kernel
def dump_open(u8, w, now):
    """Move a burst of each direction, and note for the shell where its frames lie; the frames moved.

    They lie in the inputs until `dump_commit`: no producer writes over what was not committed.
    """
    w[ring.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    work = 0
    for way in range(2):
        w[layout.FROM + way] = w[row + ring.ROW_HEADS + way]
        work += forward(u8, w, row, way, way, -1)
        w[layout.TO + way] = w[row + ring.ROW_HEADS + way]
    if work == 0:
        return 0
    count(w, row, layout.RECORDED if w[ring.CMD_STATUS] == 1 else layout.PASSED_OFF, work)
    w[layout.ROW] = row
    w[layout.WORK] = work
    return work


@kernel
def dump_commit(u8, w, now):
    """The burst that `dump_open` began counts."""
    return commit(w, w[layout.ROW], now, w[layout.WORK])
