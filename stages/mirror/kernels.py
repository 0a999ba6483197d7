"""filter-mirror: every packet goes on unchanged, and a copy of it to outdev.

A full outdev holds the packets back, so that no copy is lost; but not for ever: the client's packets must not wait for
a secondary that takes nothing (a QEMU in -incoming does not read its netdev, a host may hang).
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot, kernel
from ring.kernels.ledger import begin, commit, count, nothing_to_read
from stages.mirror.layout import counters, options, ports
from stages.packets.kernels.forward import connected, forward


@hot
def outdev_is_full(w):
    """Whether this burst found no room in outdev."""
    return w[layout.BLOCKED] >> ports.OUTDEV & 1 == 1


@hot
def stalled(w, now):
    """Whether outdev has taken nothing for so long that nobody waits for it any more.

    For a minute after a stall a tenth of the time is enough: what a system buffers for a peer that reads nothing looks
    like a peer that reads, and each new connection to it has such a buffer.
    """
    if w[options.STALL_NS] == 0:
        return False
    since = w[options.STALLED_AT]
    return w[options.FULL_NS] >= (
        w[options.STALL_NS] // 10 if since != 0 and now - since < options.SUSPECT_NS else w[options.STALL_NS]
    )


@hot
def look_at_link(w):
    """Another connection behind outdev: what the one before it has not taken says nothing of this one."""
    r = w[layout.OUTPUTS + ports.OUTDEV]
    if r == 0:
        return
    link = load_acquire(w, r + layout.C_LINK)  # partner: the chardev's process
    if link & 1 == 1 and link != w[options.LINK]:
        w[options.LINK] = link
        w[options.FULL_NS] = w[options.STALLED] = 0


@hot
def look_at_outdev(w, now):
    """Note for how long a full outdev has taken nothing; it has not where its head stands still."""
    if not outdev_is_full(w) and w[options.FULL_NS] == 0:
        return
    taken = load_acquire(w, w[layout.OUTPUTS + ports.OUTDEV] + layout.HEAD)  # partner: the process behind outdev
    if taken != w[options.TAKEN] or w[options.FULL_NS] == 0:
        w[options.TAKEN] = taken
        w[options.FULL_NS] = int(outdev_is_full(w))  # more than nothing: it has begun
    elif outdev_is_full(w):
        w[options.FULL_NS] += min(now - w[options.LOOKED], options.LOOK_NS)
    w[options.LOOKED] = now
    w[options.STALLED] = int(stalled(w, now))
    if w[options.STALLED] == 1:
        w[options.STALLED_AT] = now


@hot
def mirror_direction(u8, w, row, i, o):
    """Pass a burst from input ``i`` to output ``o`` and a copy of it to outdev; the number of frames."""
    mirroring = w[layout.OUTPUTS + ports.OUTDEV] != 0 and w[layout.CMD_STATUS] == 1
    if mirroring and connected(w, ports.OUTDEV):
        frames = forward(u8, w, row, i, o, ports.OUTDEV)
        if frames == 0 and outdev_is_full(w) and w[options.STALLED] == 1:
            frames = forward(u8, w, row, i, o, -1)
            count(w, row, counters.DROPPED_STALLED, frames)
        return frames
    frames = forward(u8, w, row, i, o, -1)
    if mirroring:
        count(w, row, counters.DROPPED_NO_PEER, frames)
    return frames


@kernel
def mirror_burst(u8, w, now):
    """One burst of each direction."""
    w[layout.BLOCKED] = 0
    if nothing_to_read(w):
        return 0
    look_at_link(w)
    row = begin(w)
    work = mirror_direction(u8, w, row, ports.TX_IN, ports.TX_OUT) + mirror_direction(
        u8, w, row, ports.RX_IN, ports.RX_OUT
    )
    look_at_outdev(w, now)
    if work == 0:
        return 0
    return commit(w, row, now, work)
