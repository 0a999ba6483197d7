"""What is held when a checkpoint was made, or when the secondary is lost: all of it leaves, or is dropped."""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.frames import copied_size, frame_at, index
from ring.kernels.ledger import blocked, count, put, room, scalar, undo_left
from stages.compare.kernels.connections import connection
from stages.compare.kernels.fragments import remember_group
from stages.compare.kernels.grace import leave
from stages.compare.kernels.release import release_record
from stages.compare.kernels.slots import fits_slot, slot, unlink
from stages.compare.kernels.tcp_segments import note_primary
from stages.compare.kernels.timestamps import emit_in_time
from stages.compare.kernels.uncompared import never_compared
from stages.compare.layout import checkpoints, conns, counters, memory, options, ports, scalars, slots
from stages.packets.kernels.parse import parse
from stages.packets.layout import transports


@hot
def flush(u8, w, row, now):
    """Settle what is held: the primary's leaves, the secondary's is dropped.  True when nothing is held any more.

    After a checkpoint the replicas are equal; where the secondary is lost nothing will come that could be compared.
    """
    checkpoint_made = w[scalar(row, scalars.FLUSHING)] == scalars.FLUSH_CHECKPOINT
    while undo_left(w) > memory.RESERVE:
        n = w[scalar(row, scalars.OLDEST)] - 1
        if n >= 0:
            if not fits_slot(w, row, n):
                blocked(w, ports.OUTDEV)
                return False
            leave(w, row, w[slot(w, n) + slots.CONN])
            emit_in_time(u8, w, row, w[slot(w, n) + slots.CONN], n)
            remember_group(w, n, now)
            frames = unlink(w, row, n)
            count(w, row, counters.RELEASED_AT_CHECKPOINT if checkpoint_made else counters.RELEASED_UNARMED, frames)
            continue
        n = w[scalar(row, scalars.OLDEST + 1)] - 1
        if n < 0:
            return not checkpoint_made or (_settle_input(u8, w, row, 0, now) and _settle_input(u8, w, row, 1, now))
        leave(w, row, w[slot(w, n) + slots.CONN])
        remember_group(w, n, now)
        frames = unlink(w, row, n)
        count(w, row, counters.DROPPED_AT_CHECKPOINT if checkpoint_made else counters.DROPPED_UNARMED, frames)
    return False


@hot
def _settle_input(u8, w, row, side, now):
    """Settle what was in an input when the checkpoint was asked for: it was said before, too.  True when that is done.

    What came later may have been said by either replica after the checkpoint.
    """
    r = w[layout.INPUTS + side]
    while r != 0 and w[row + layout.ROW_HEADS + side] < w[w[options.CHECKPOINTS] + checkpoints.ASKED_AT + side]:
        if undo_left(w) < memory.RESERVE:
            return False
        position = w[row + layout.ROW_HEADS + side]
        at = index(w, r, position)
        frame, length = frame_at(u8, w, r, at)
        if side == 0:
            if room(w, row, ports.OUTDEV) < copied_size(u8, w, r, position, w[layout.OUTPUTS + ports.OUTDEV]):
                blocked(w, ports.OUTDEV)
                return False
            s = w[options.SCRATCH]
            transport = parse(u8, w, frame, length, s)
            never = never_compared(u8, w, s, frame, transport)
            if transport == transports.TCP:
                c = connection(w, row, 0, s, transport, now)
                if c != 0 and note_primary(w, row, c, s):
                    put(w, c + conns.GENERATION, -1)  # and its counterpart has sent as much
            release_record(u8, w, row, r, position)
            count(w, row, counters.RELEASED_UNCOMPARED if never else counters.RELEASED_AT_CHECKPOINT, 1)
        else:
            count(w, row, counters.DROPPED_AT_CHECKPOINT, 1)
        w[row + layout.ROW_HEADS + side] = position + frame + length - at
        count(w, row, side, 1)
    return True
