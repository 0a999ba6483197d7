"""Frames of the primary that leave: straight from its ring, or from a slot.  Who counts why, the caller knows."""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.frames import copied_size, copy_record
from ring.kernels.ledger import blocked, count, room
from stages.compare.kernels.slots import emit_slot, unlink
from stages.compare.layout import counters, ports
from stages.packets.layout import parsed


@hot
def release_record(u8, w, row, r, position):
    """Send the record at ``position`` of ring ``r`` to outdev; False where there is no room."""
    out = w[layout.OUTPUTS + ports.OUTDEV]
    if room(w, row, ports.OUTDEV) < copied_size(u8, w, r, position, out):
        blocked(w, ports.OUTDEV)
        return False
    w[row + layout.ROW_TAILS + ports.OUTDEV] += copy_record(
        u8, w, r, position, out, w[row + layout.ROW_TAILS + ports.OUTDEV]
    )
    count(w, row, layout.PORTS + ports.OUTDEV, 1)
    return True


@hot
def release_packet(u8, w, row, s):
    """Send the packet at hand (fields at ``s``) to outdev; False where there is no room."""
    return release_record(u8, w, row, w[s + parsed.RING], w[s + parsed.POSITION])


@hot
def release_held(u8, w, row, n):
    """Release the held primary packet ``n``; the caller has seen that it fits."""
    emit_slot(u8, w, row, n)
    count(w, row, counters.RELEASED, unlink(w, row, n))
