"""Timestamps of segments that leave in another order than the primary sent them in (RFC 7323).

What the primary sends again leaves at once, while newer data may still be held.  Its TSval is later than theirs, and
the client, which notes the latest TSval of what it waits for, would drop them as old (PAWS).  So held segments get the
TSval of what has overtaken them.  Raised, not lowered: an older TSval on the one sent again would tell the primary that
it was sent in vain (RFC 3522).
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, put_be16
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import put
from stages.compare.kernels.slots import emit_slot, slot
from stages.compare.layout import conns, options, ports, slots
from stages.packets.kernels.checksum import updated
from stages.packets.kernels.serial import after, diff
from stages.packets.kernels.tcp_options import move, timestamps
from stages.packets.kernels.tunnels import is_partial, read_packet
from stages.packets.layout import parsed, transports

_CHECKSUM = 16  # offset in the TCP header


@hot
def note_overtaking(u8, w, c, frame, s):
    """The segment at ``frame`` (fields at ``s``) leaves now: what is held and comes behind it must look no older."""
    n = w[c + conns.HEAD + conns.PACKETS] - 1
    if n < 0 or diff(w[s + parsed.SEQ], w[slot(w, n) + slots.SEQ]) >= 0:
        return
    tcp = frame + w[s + parsed.L4]
    at = timestamps(u8, tcp, w[s + parsed.DATA] - w[s + parsed.L4])
    if at < 0:
        return
    stamp, state = be32(u8, tcp + at), w[c + conns.FLAGS]
    if state & conns.CF_OVERTAKEN == 0 or after(stamp, w[c + conns.TS_FLOOR]):
        put(w, c + conns.TS_FLOOR, stamp)
        put(w, c + conns.FLAGS, state | conns.CF_OVERTAKEN)


@hot
def note_held_overtaking(u8, w, c, n):
    """The same for the held segment ``n``."""
    x = slot(w, n)
    s, vnet = w[options.SCRATCH] + parsed.SCRATCH, w[x + slots.VNET]
    if (
        w[c + conns.HEAD + conns.PACKETS] != 0
        and read_packet(u8, w, w[x + slots.BYTES] + vnet, w[x + slots.FRAME] - vnet, s, w[options.TUNNELS])
        == transports.TCP
    ):
        note_overtaking(u8, w, c, w[x + slots.BYTES] + vnet, s)


@hot
def forget_overtaking(w, c):
    """Once nothing is held, what comes next is newer by itself."""
    if w[c + conns.FLAGS] & conns.CF_OVERTAKEN and w[c + conns.HEAD + conns.PACKETS] == 0:
        put(w, c + conns.FLAGS, w[c + conns.FLAGS] & ~conns.CF_OVERTAKEN)


@hot
def emit_in_time(u8, w, row, c, n):
    """`emit_slot`, with a TSval that is no older than what has left; the caller has seen that it fits."""
    x = slot(w, n)
    start = w[row + layout.ROW_TAILS + ports.OUTDEV]
    nbytes, vnet = w[x + slots.FRAME], w[x + slots.VNET]
    emit_slot(u8, w, row, n)
    if w[c + conns.FLAGS] & conns.CF_OVERTAKEN == 0:
        return
    out = w[layout.OUTPUTS + ports.OUTDEV]
    at = index(w, out, start) + prefix(w, out)
    s = w[options.SCRATCH] + parsed.SCRATCH
    if read_packet(u8, w, at + vnet, nbytes - vnet, s, w[options.TUNNELS]) != transports.TCP:
        return
    tcp = at + vnet + w[s + parsed.L4]
    place = timestamps(u8, tcp, w[s + parsed.DATA] - w[s + parsed.L4])
    if place < 0:
        return
    late = diff(w[c + conns.TS_FLOOR], be32(u8, tcp + place))
    if late <= 0:
        return
    delta = move(u8, tcp, place, late)
    if not is_partial(u8, w, s, at + vnet, vnet):
        put_be16(u8, tcp + _CHECKSUM, updated(be16(u8, tcp + _CHECKSUM), delta))
