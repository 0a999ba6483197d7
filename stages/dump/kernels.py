"""filter-dump: a burst goes on in both directions; it counts once its copies are in the file."""

from __future__ import annotations

from ring import layout
from ring.hot import kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.dump import layout as own
from stages.packets.kernels.forward import forward


@kernel
def dump_open(u8, w, now):
    """Move a burst of each direction, and note for the shell where its frames lie; the frames moved.

    They lie in the inputs until `dump_commit`: no producer writes over what was not committed.
    """
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    work = 0
    for way in range(2):
        w[own.FROM + way] = w[row + layout.ROW_HEADS + way]
        work += forward(u8, w, row, way, way, -1)
        w[own.TO + way] = w[row + layout.ROW_HEADS + way]
    if work == 0:
        return 0
    w[own.RECORDING] = w[layout.CMD_STATUS]  # read once: the supervisor may write it before the shell looks
    count(w, row, own.RECORDED if w[own.RECORDING] == 1 else own.PASSED_OFF, work)
    w[own.ROW] = row
    w[own.WORK] = work
    return work


@kernel
def dump_commit(u8, w, now):
    """The burst that `dump_open` began counts."""
    return commit(w, w[own.ROW], now, w[own.WORK])
