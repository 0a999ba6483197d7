"""filter-mirror: every packet goes on unchanged, and a copy of it to outdev."""

from __future__ import annotations

from ring.hot import hot, kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from ring.layout import BLOCKED, CMD_STATUS, P_OUTPUTS
from stages.kernels.forward import connected, forward
from stages.layout.mirror import NO_PEER, OUTDEV, RX_IN, RX_OUT, TX_IN, TX_OUT


@hot
def mirror_direction(u8, w, row, i, o):
    """Pass a burst from input ``i`` to output ``o`` and a copy of it to outdev; the number of frames."""
    mirroring = w[P_OUTPUTS + OUTDEV] != 0 and w[CMD_STATUS] == 1
    if mirroring and connected(w, OUTDEV):
        return forward(u8, w, row, i, o, OUTDEV)
    frames = forward(u8, w, row, i, o, -1)
    if mirroring:
        count(w, row, NO_PEER, frames)
    return frames


@kernel
def mirror_burst(u8, w, now):
    """One burst of each direction."""
    w[BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    work = mirror_direction(u8, w, row, TX_IN, TX_OUT) + mirror_direction(u8, w, row, RX_IN, RX_OUT)
    if work == 0:
        return 0
    return commit(w, row, now, work)
