"""filter-redirector: the chain's packets to outdev, indev's frames into the chain."""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot, kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.packets.kernels.forward import connected, forward
from stages.packets.kernels.gate import discard
from stages.redirector import layout as own


@hot
def stands_aside(w):
    """Whether a failover was announced to a secondary: its guest is alone, and speaks with the network itself."""
    return w[own.SECONDARY] == 1 and load_acquire(w, layout.CMD_FAILOVER) != 0  # partner: the supervisor


@hot
def redirect_direction(u8, w, row, i, o):
    """A burst of the chain's input ``i`` leaves to outdev, or goes on to output ``o``; the number of frames."""
    redirecting = not stands_aside(w) and w[layout.OUTPUTS + own.OUTDEV] != 0 and w[layout.CMD_STATUS] == 1
    if redirecting and connected(w, own.OUTDEV):
        return forward(u8, w, row, i, own.OUTDEV, -1)
    frames = forward(u8, w, row, i, o, -1)
    count(w, row, own.PASSED_ON, frames)
    if redirecting:
        count(w, row, own.PASSED_NO_PEER, frames)
    return frames


@hot
def inject(u8, w, row):
    """A burst of indev enters the chain, in each direction that the filter has; the number of frames."""
    if stands_aside(w):
        return discard(u8, w, row, own.INDEV, own.DROPPED_AFTER_FAILOVER)
    if w[layout.CMD_STATUS] != 1:
        return 0
    tx, rx = w[layout.OUTPUTS + own.TX_OUT] != 0, w[layout.OUTPUTS + own.RX_OUT] != 0
    if tx and rx:
        frames = forward(u8, w, row, own.INDEV, own.TX_OUT, own.RX_OUT)
        count(w, row, own.INJECTED_TWICE, frames)
    elif tx:
        frames = forward(u8, w, row, own.INDEV, own.TX_OUT, -1)
    elif rx:
        frames = forward(u8, w, row, own.INDEV, own.RX_OUT, -1)
    else:
        return 0
    if tx:
        count(w, row, own.INJECTED_TX, frames)
    if rx:
        count(w, row, own.INJECTED_RX, frames)
    return frames


@kernel
def redirector_burst(u8, w, now):
    """One burst of each input.

    Inputs can want the same output.  Whoever comes first may take all its room, so the order turns with each burst.
    """
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    row = begin(w)
    if w[layout.COMMITTED] & 1:
        work = inject(u8, w, row)
        work += redirect_direction(u8, w, row, own.RX_IN, own.RX_OUT)
        work += redirect_direction(u8, w, row, own.TX_IN, own.TX_OUT)
    else:
        work = redirect_direction(u8, w, row, own.TX_IN, own.TX_OUT)
        work += redirect_direction(u8, w, row, own.RX_IN, own.RX_OUT)
        work += inject(u8, w, row)
    if work == 0:
        return 0
    return commit(w, row, now, work)
