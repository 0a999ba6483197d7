"""Timestamps of segments that leave in another order than the primary sent them in (RFC 7323).

What the primary sends again leaves at once, while newer data may still be held.  Its TSval is later than theirs, and
the client, which notes the latest TSval of what it waits for, would drop them as old (PAWS).  So held segments get the
TSval of what has overtaken them.  Raised, not lowered: an older TSval on the one sent again would tell the primary that
it was sent in vain (RFC 3522).
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, byte, put_be16
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import put
from stages.compare.kernels.slots import emit_slot, slot
from stages.compare.layout.words import (
    C_FLAGS,
    C_HEAD,
    C_TS_FLOOR,
    CF_OVERTAKEN,
    O_SCRATCH,
    OUTDEV,
    PACKETS,
    S_BYTES,
    S_FRAME,
    S_SEQ,
    S_V,
)
from stages.packets.kernels.checksum import updated
from stages.packets.kernels.parse import parse
from stages.packets.kernels.serial import after, diff
from stages.packets.kernels.tcp_options import move, timestamps
from stages.packets.layout.packet import F_DATA, F_L4, F_SEQ, SCRATCH, TCP

_CHECKSUM = 16  # offset in the TCP header
_NEEDS_CSUM = 1  # virtio-net header flags, its first byte (virtio 1.2, 5.1.6): the checksum is made later


@hot
def note_overtaking(u8, w, c, frame, s):
    """The segment at ``frame`` (fields at ``s``) leaves now: what is held and comes behind it must look no older."""
    n = w[c + C_HEAD + PACKETS] - 1
    if n < 0 or diff(w[s + F_SEQ], w[slot(w, n) + S_SEQ]) >= 0:
        return
    tcp = frame + w[s + F_L4]
    at = timestamps(u8, tcp, w[s + F_DATA] - w[s + F_L4])
    if at < 0:
        return
    stamp, state = be32(u8, tcp + at), w[c + C_FLAGS]
    if state & CF_OVERTAKEN == 0 or after(stamp, w[c + C_TS_FLOOR]):
        put(w, c + C_TS_FLOOR, stamp)
        put(w, c + C_FLAGS, state | CF_OVERTAKEN)


@hot
def note_held_overtaking(u8, w, c, n):
    """The same for the held segment ``n``."""
    x = slot(w, n)
    s, vnet = w[O_SCRATCH] + SCRATCH, w[x + S_V]
    if w[c + C_HEAD + PACKETS] != 0 and parse(u8, w, w[x + S_BYTES] + vnet, w[x + S_FRAME] - vnet, s) == TCP:
        note_overtaking(u8, w, c, w[x + S_BYTES] + vnet, s)


@hot
def forget_overtaking(w, c):
    """Once nothing is held, what comes next is newer by itself."""
    if w[c + C_FLAGS] & CF_OVERTAKEN and w[c + C_HEAD + PACKETS] == 0:
        put(w, c + C_FLAGS, w[c + C_FLAGS] & ~CF_OVERTAKEN)


@hot
def emit_in_time(u8, w, row, c, n):
    """`emit_slot`, with a TSval that is no older than what has left; the caller has seen that it fits."""
    x = slot(w, n)
    start = w[row + layout.ROW_TAILS + OUTDEV]
    nbytes, vnet = w[x + S_FRAME], w[x + S_V]
    emit_slot(u8, w, row, n)
    if w[c + C_FLAGS] & CF_OVERTAKEN == 0:
        return
    out = w[layout.OUTPUTS + OUTDEV]
    at = index(w, out, start) + prefix(w, out)
    s = w[O_SCRATCH] + SCRATCH
    if parse(u8, w, at + vnet, nbytes - vnet, s) != TCP:
        return
    tcp = at + vnet + w[s + F_L4]
    place = timestamps(u8, tcp, w[s + F_DATA] - w[s + F_L4])
    if place < 0:
        return
    late = diff(w[c + C_TS_FLOOR], be32(u8, tcp + place))
    if late <= 0:
        return
    delta = move(u8, tcp, place, late)
    if vnet == 0 or byte(u8, at) & _NEEDS_CSUM == 0:
        put_be16(u8, tcp + _CHECKSUM, updated(be16(u8, tcp + _CHECKSUM), delta))
