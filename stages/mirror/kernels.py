"""filter-mirror: every packet goes on unchanged, and a copy of it to outdev.

A full outdev holds the packets back, so that no copy is lost; but not for ever: the client's packets must not wait for
a secondary that takes nothing (a QEMU in -incoming does not read its netdev, a host may hang).
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot, kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.mirror import layout as own
from stages.packets.kernels.forward import connected, forward


@hot
def outdev_is_full(w):
    """Whether this burst found no room in outdev."""
    return w[layout.BLOCKED] >> own.OUTDEV & 1 == 1


@hot
def stalled(w, now):
    """Whether outdev has taken nothing for so long that nobody waits for it any more.

    For a minute after a stall a tenth of the time is enough: what a system buffers for a peer that reads nothing looks
    like a peer that reads, and each new connection to it has such a buffer.
    """
    if w[own.STALL_NS] == 0:
        return False
    since = w[own.STALLED_AT]
    return w[own.FULL_NS] >= (w[own.STALL_NS] // 10 if since != 0 and now - since < own.SUSPECT_NS else w[own.STALL_NS])


@hot
def look_at_link(w):
    """Another connection behind outdev: what the one before it has not taken says nothing of this one."""
    r = w[layout.OUTPUTS + own.OUTDEV]
    if r == 0:
        return
    link = load_acquire(w, r + layout.C_LINK)  # partner: the chardev's process
    if link & 1 == 1 and link != w[own.LINK]:
        w[own.LINK] = link
        w[own.FULL_NS] = w[own.STALLED] = 0


@hot
def look_at_outdev(w, now):
    """Note for how long a full outdev has taken nothing; it has not where its head stands still."""
    if not outdev_is_full(w) and w[own.FULL_NS] == 0:
        return
    taken = load_acquire(w, w[layout.OUTPUTS + own.OUTDEV] + layout.HEAD)  # partner: the process behind outdev
    if taken != w[own.TAKEN] or w[own.FULL_NS] == 0:
        w[own.TAKEN] = taken
        w[own.FULL_NS] = int(outdev_is_full(w))  # more than nothing: it has begun
    elif outdev_is_full(w):
        w[own.FULL_NS] += min(now - w[own.LOOKED], own.LOOK_NS)
    w[own.LOOKED] = now
    w[own.STALLED] = int(stalled(w, now))
    if w[own.STALLED] == 1:
        w[own.STALLED_AT] = now


@hot
def mirror_direction(u8, w, row, i, o):
    """Pass a burst from input ``i`` to output ``o`` and a copy of it to outdev; the number of frames."""
    mirroring = w[layout.OUTPUTS + own.OUTDEV] != 0 and w[layout.CMD_STATUS] == 1
    if mirroring and connected(w, own.OUTDEV):
        frames = forward(u8, w, row, i, o, own.OUTDEV)
        if frames == 0 and outdev_is_full(w) and w[own.STALLED] == 1:
            frames = forward(u8, w, row, i, o, -1)
            count(w, row, own.DROPPED_STALLED, frames)
        return frames
    frames = forward(u8, w, row, i, o, -1)
    if mirroring:
        count(w, row, own.DROPPED_NO_PEER, frames)
    return frames


@kernel
def mirror_burst(u8, w, now):
    """One burst of each direction."""
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    look_at_link(w)
    row = begin(w)
    work = mirror_direction(u8, w, row, own.TX_IN, own.TX_OUT) + mirror_direction(u8, w, row, own.RX_IN, own.RX_OUT)
    look_at_outdev(w, now)
    if work == 0:
        return 0
    return commit(w, row, now, work)
