"""filter-mirror: every packet goes on unchanged, and a copy of it to outdev.

A full outdev holds the packets back, so that no copy is lost; but not for ever: the client's packets must not wait for
a secondary that takes nothing (a QEMU in -incoming does not read its netdev, a host may hang).
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot, kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.mirror.layout import (
    LOOK_NS,
    NO_PEER,
    O_FULL_NS,
    O_LINK,
    O_LOOKED,
    O_STALL_NS,
    O_STALLED,
    O_STALLED_AT,
    O_TAKEN,
    OUTDEV,
    RX_IN,
    RX_OUT,
    STALLED,
    SUSPECT_NS,
    TX_IN,
    TX_OUT,
)
from stages.packets.kernels.forward import connected, forward


@hot
def outdev_is_full(w):
    """Whether this burst found no room in outdev."""
    return w[layout.BLOCKED] >> OUTDEV & 1 == 1


@hot
def stalled(w, now):
    """Whether outdev has taken nothing for so long that nobody waits for it any more.

    For a minute after a stall a tenth of the time is enough: what a system buffers for a peer that reads nothing looks
    like a peer that reads, and each new connection to it has such a buffer.
    """
    if w[O_STALL_NS] == 0:
        return False
    since = w[O_STALLED_AT]
    return w[O_FULL_NS] >= (w[O_STALL_NS] // 10 if since != 0 and now - since < SUSPECT_NS else w[O_STALL_NS])


@hot
def look_at_link(w):
    """Another connection behind outdev: what the one before it has not taken says nothing of this one."""
    r = w[layout.OUTPUTS + OUTDEV]
    if r == 0:
        return
    link = load_acquire(w, r + layout.C_LINK)  # partner: the chardev's process
    if link & 1 == 1 and link != w[O_LINK]:
        w[O_LINK] = link
        w[O_FULL_NS] = w[O_STALLED] = 0


@hot
def look_at_outdev(w, now):
    """Note for how long a full outdev has taken nothing; it has not where its head stands still."""
    if not outdev_is_full(w) and w[O_FULL_NS] == 0:
        return
    taken = load_acquire(w, w[layout.OUTPUTS + OUTDEV] + layout.HEAD)  # partner: the process behind outdev
    if taken != w[O_TAKEN] or w[O_FULL_NS] == 0:
        w[O_TAKEN] = taken
        w[O_FULL_NS] = int(outdev_is_full(w))  # more than nothing: it has begun
    elif outdev_is_full(w):
        w[O_FULL_NS] += min(now - w[O_LOOKED], LOOK_NS)
    w[O_LOOKED] = now
    w[O_STALLED] = int(stalled(w, now))
    if w[O_STALLED] == 1:
        w[O_STALLED_AT] = now


@hot
def mirror_direction(u8, w, row, i, o):
    """Pass a burst from input ``i`` to output ``o`` and a copy of it to outdev; the number of frames."""
    mirroring = w[layout.OUTPUTS + OUTDEV] != 0 and w[layout.CMD_STATUS] == 1
    if mirroring and connected(w, OUTDEV):
        frames = forward(u8, w, row, i, o, OUTDEV)
        if frames == 0 and outdev_is_full(w) and w[O_STALLED] == 1:
            frames = forward(u8, w, row, i, o, -1)
            count(w, row, STALLED, frames)
        return frames
    frames = forward(u8, w, row, i, o, -1)
    if mirroring:
        count(w, row, NO_PEER, frames)
    return frames


@kernel
def mirror_burst(u8, w, now):
    """One burst of each direction."""
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    look_at_link(w)
    row = begin(w)
    work = mirror_direction(u8, w, row, TX_IN, TX_OUT) + mirror_direction(u8, w, row, RX_IN, RX_OUT)
    look_at_outdev(w, now)
    if work == 0:
        return 0
    return commit(w, row, now, work)
