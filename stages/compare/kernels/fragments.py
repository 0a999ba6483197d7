"""IP fragments in the compare: gathered per side and datagram; the datagram is compared when it is whole.

Fragments of one side, conversation and identification hang at a *group*: the slot of the first that came, which is one
held packet in a row of its own for both sides (`slots.PARTS`, `slots.SIBLING`).  When no byte is missing, the datagram
is put together in another slot, which takes over the parts and goes on as a datagram of the connection with the real
ports.  So a replica that fragments agrees with one that does not, and the primary's own fragments leave, in order of
arrival.

A group can never be whole where fragments overlap (RFC 5722; an exact duplicate is tolerated, RFC 8200, 4.5), where one
is empty, where one that is not the last has a length that is no multiple of 8 (what follows it overlaps, or leaves a
gap), where the end is beyond 65,535 bytes or said to be at two places, and beyond MOST frames.  Such a group and one
with a fragment missing wait like any held packet: the deadline is that of the first fragment.  It is a difference
unless the other side has sent just as much (`stages.compare.kernels.unfinished`).  A copy of a fragment that comes when
its datagram was whole begins such a group, too.

TCP put together is compared as a datagram, in a row of its own, and so is what cannot be read: the lists of a stream
hold segments of one frame each.  Stacks set DF on TCP, so that this is rare.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import common_prefix
from ring.hot import hot
from ring.kernels.frames import copied_size
from ring.kernels.ledger import blocked, count, put, undo_left
from stages.compare.kernels.connections import connection
from stages.compare.kernels.datagrams import count_masked, equal_held
from stages.compare.kernels.grace import watch
from stages.compare.kernels.reassembly import put_together
from stages.compare.kernels.release import release_packet
from stages.compare.kernels.slots import (
    count_held,
    detach,
    emit_slot,
    fits_slot,
    give_back,
    give_parts,
    link,
    slot,
    store_packet,
    unlink,
)
from stages.compare.kernels.tcp_compare import drop_counts, release_counts, service
from stages.compare.layout import conns, counters, memory, options, ports, slots
from stages.packets.layout import networks, parsed, transports

MOST = 128  # frames of a group: 65,535 bytes at the least MTU that anyone has (576, RFC 791) are 119


@hot
def fragment(u8, w, row, side, s, now):
    """Take the fragment at hand (fields at ``s``) of ``side``; False where it has to wait in its ring."""
    # The next header of IPv6 need not be the same in all fragments (RFC 8200, 4.5): it is no part of the key.
    proto = w[s + parsed.PROTO] if w[s + parsed.IPV] == 4 else 44
    w[s + parsed.PORTS] = w[s + parsed.PORTS] & networks.VIA | conns.KEY_FRAGMENTS | proto << 32
    c = connection(w, row, side, s, transports.FRAGMENT, now)
    if c == 0:
        return False
    n = _group(w, c, conns.SECONDARY if side else conns.PACKETS, w[s + parsed.IP_ID])
    if n < 0 and _late(w, c, side, s, now):
        return _follow(u8, w, row, side, s)
    if n < 0 or not _has_room(u8, w, n, s):
        return _begin(u8, w, row, c, side, s, now)
    here = _joined(u8, w, n, s)
    if here != slots.NEVER and here == _end(w, n, s):
        return _complete(u8, w, row, side, n, s, now)
    return _append(u8, w, row, side, n, s, here, now)


@hot
def remember_group(w, n, now):
    """Note that slot ``n`` leaves or is dropped as it is; the rest of an unfinished datagram may still come."""
    x = slot(w, n)
    c = w[x + slots.CONN]
    if w[c + conns.TRANSPORT] == transports.FRAGMENT:
        side = 1 if w[x + slots.LIST] == conns.SECONDARY else 0
        put(w, c + conns.GIVEN_UP + side, w[x + slots.IDENT] + 1)
        put(w, c + conns.GIVEN_UP_AT + side, now)


@hot
def _late(w, c, side, s, now):
    """Whether a fragment belongs to a datagram whose beginning has left or was dropped, and so can never be whole.

    Only for ``compare_timeout``: an identification is used again.  The first fragment always begins a datagram.
    After a checkpoint the secondary goes on where the primary was: it sends the rest of the primary's datagram, too.
    """
    if w[s + parsed.FRAG] >> 1 == 0:
        return False
    for i in range(side + 1):
        if (
            w[c + conns.GIVEN_UP + i] == w[s + parsed.IP_ID] + 1
            and now - w[c + conns.GIVEN_UP_AT + i] < w[options.TIMEOUT_NS]
        ):
            return True
    return False


@hot
def _follow(u8, w, row, side, s):
    """Let a late fragment go where the rest of its datagram went."""
    if side == 0:
        if not release_packet(u8, w, row, s):
            return False
        count(w, row, counters.RELEASED_AT_CHECKPOINT, 1)
    else:
        count(w, row, counters.DROPPED_AT_CHECKPOINT, 1)
    return True


@hot
def _group(w, c, which, ident):
    """The newest group with this identification in list ``which``, or -1."""
    n = w[c + conns.TAIL + which] - 1
    while n >= 0 and w[slot(w, n) + slots.IDENT] != ident:
        n = w[slot(w, n) + slots.PREV] - 1
    return n


@hot
def _has_room(u8, w, n, s):
    """Whether the group may have one more frame: MOST of them, and outdev must be able to take them all at once."""
    x = slot(w, n)
    out = w[layout.OUTPUTS + ports.OUTDEV]
    size = copied_size(u8, w, w[s + parsed.RING], w[s + parsed.POSITION], out)
    return w[x + slots.FRAMES] < MOST and w[x + slots.EMIT] + size <= w[out + layout.SIZE]


@hot
def _end(w, n, s):
    """Where the datagram of group ``n`` ends as far as the group and the fragment at ``s`` know, or -1."""
    return w[slot(w, n) + slots.WHOLE] if w[s + parsed.FRAG] & 1 else (w[s + parsed.FRAG] >> 1) + w[s + parsed.DATA_LEN]


@hot
def _joined(u8, w, n, s):
    """Bytes that are here when the fragment at ``s`` has joined group ``n``, or slots.NEVER."""
    x = slot(w, n)
    here, end = w[x + slots.HERE], _end(w, n, s)
    start, length = w[s + parsed.FRAG] >> 1, w[s + parsed.DATA_LEN]
    if here == slots.NEVER or length == 0 or (w[x + slots.WHOLE] >= 0 and w[x + slots.WHOLE] != end):
        return slots.NEVER
    if end >= 0 and start + length > end:
        return slots.NEVER
    payload = w[s + parsed.FRAME] + w[s + parsed.L4]
    again = False
    part = w[x + slots.PARTS]
    while part != 0:
        y = slot(w, part - 1)
        first, size = w[y + slots.PLACE] >> 1, w[y + slots.DATA_LEN]
        if w[y + slots.PLACE] == w[s + parsed.FRAG] and size == length:
            if common_prefix(u8, w[y + slots.BYTES] + w[y + slots.DATA], payload, length) < length:
                return slots.NEVER  # which of the two counts is the receiver's choice
            again = True
        elif (first < start + length and start < first + size) or (end >= 0 and first + size > end):
            return slots.NEVER
        part = w[y + slots.SIBLING]
    return here if again else here + length


@hot
def _store(u8, w, row, c, side, s, now):
    m = store_packet(u8, w, row, side, s, now)
    if m < 0:
        w[options.STUCK] |= 1 << side
        return -1
    x = slot(w, m)
    w[x + slots.IDENT] = w[s + parsed.IP_ID]
    w[x + slots.PLACE] = w[s + parsed.FRAG]
    w[x + slots.CONN] = c
    return m


@hot
def _begin(u8, w, row, c, side, s, now):
    """Begin a group with the fragment at ``s``."""
    which = conns.SECONDARY if side else conns.PACKETS
    if w[c + conns.COUNT + which] >= w[options.MAX_QUEUE]:
        w[options.STUCK] |= 1 << side
        return False
    m = _store(u8, w, row, c, side, s, now)
    if m < 0:
        return False
    x = slot(w, m)
    w[x + slots.PARTS] = m + 1
    w[x + slots.LAST] = m + 1
    w[x + slots.HERE] = w[s + parsed.DATA_LEN] if w[s + parsed.DATA_LEN] > 0 else slots.NEVER
    w[x + slots.WHOLE] = -1 if w[s + parsed.FRAG] & 1 else (w[s + parsed.FRAG] >> 1) + w[s + parsed.DATA_LEN]
    link(w, row, c, which, m, False)
    return True


@hot
def _append(u8, w, row, side, n, s, here, now):
    """Add the fragment at ``s`` to group ``n``, of which ``here`` bytes are then there."""
    x = slot(w, n)
    m = _store(u8, w, row, w[x + slots.CONN], side, s, now)
    if m < 0:
        return False
    put(w, slot(w, w[x + slots.LAST] - 1) + slots.SIBLING, m + 1)
    put(w, x + slots.LAST, m + 1)
    put(w, x + slots.HERE, here)
    put(w, x + slots.WHOLE, _end(w, n, s))
    put(w, x + slots.FRAMES, w[x + slots.FRAMES] + 1)
    put(w, x + slots.EMIT, w[x + slots.EMIT] + w[slot(w, m) + slots.EMIT])
    count_held(w, row, side, 1)
    return True


@hot
def _complete(u8, w, row, side, n, s, now):
    """The last missing fragment of group ``n``: compare the datagram."""
    b = s + parsed.SCRATCH
    m = _store(u8, w, row, w[slot(w, n) + slots.CONN], side, s, now)
    if m < 0:
        return False
    whole = put_together(u8, w, row, side, n, m, _end(w, n, s), b, now)
    if whole == -1:
        w[options.STUCK] |= 1 << side
        give_back(w, row, m)
        return False
    if whole < 0:
        give_back(w, row, m)
        return _append(u8, w, row, side, n, s, slots.NEVER, now)
    x, y = slot(w, n), slot(w, whole)
    frames = w[x + slots.FRAMES] + 1
    w[y + slots.FRAMES] = frames
    w[y + slots.EMIT] = w[x + slots.EMIT] + w[slot(w, m) + slots.EMIT]
    d, e = 0, -1
    if undo_left(w) >= memory.RESERVE // 2:
        d = connection(w, row, side, b, w[y + slots.TRANSPORT], now)
    if d != 0:
        e = _counterpart(u8, w, row, d, side, whole, now)
    if d == 0 or e == -2:
        give_back(w, row, m)
        give_back(w, row, whole)
        return False
    put(w, slot(w, w[x + slots.LAST] - 1) + slots.SIBLING, m + 1)
    w[y + slots.PARTS] = n + 1
    detach(w, row, n)
    count(w, row, counters.FRAGMENTS, frames)
    _place_datagram(u8, w, row, d, side, whole, e)
    watch(w, row, d, now)
    return True


@hot
def _counterpart(u8, w, row, d, side, whole, now):
    """The slot of the other side equal to ``whole``; -1: there is none; -2: want of room, the fragment has to wait."""
    which, other = (conns.SECONDARY, conns.PACKETS) if side else (conns.PACKETS, conns.SECONDARY)
    y = slot(w, whole)
    e = -1
    leaves = w[d + conns.FLAGS] & conns.PASSES != 0
    if not leaves and w[d + conns.FLAGS] & conns.CF_DIVERGED == 0:
        e = equal_held(u8, w, d, other, w[y + slots.BYTES] + w[y + slots.DATA], w[y + slots.DATA_LEN])
    if leaves and side == 0 and w[d + conns.HEAD + conns.PACKETS] != 0 and not service(u8, w, row, d, now):
        return -2  # what was held of it leaves before it
    if e >= 0 or leaves:
        if (side == 0 and not fits_slot(w, row, whole)) or (side == 1 and e >= 0 and not fits_slot(w, row, e)):
            blocked(w, ports.OUTDEV)
            return -2
    elif w[d + conns.COUNT + which] >= w[options.MAX_QUEUE]:
        w[options.STUCK] |= 1 << side
        return -2
    return e


@hot
def _place_datagram(u8, w, row, d, side, whole, e):
    """Release, drop or hold the datagram ``whole`` of connection ``d``; its equal is the held packet ``e``, or -1."""
    y = slot(w, whole)
    frames = w[y + slots.FRAMES]
    if e < 0 and w[d + conns.FLAGS] & conns.PASSES == 0:
        if side == 1:  # its fragments never leave
            give_parts(w, row, whole)
            w[y + slots.PARTS] = 0
        link(w, row, d, conns.SECONDARY if side else conns.PACKETS, whole, False)
        return
    if side == 0:
        emit_slot(u8, w, row, whole)
    elif e >= 0:
        emit_slot(u8, w, row, e)
    if e >= 0:
        x = slot(w, e)
        mine, theirs = w[x + slots.BYTES] + w[x + slots.DATA], w[y + slots.BYTES] + w[y + slots.DATA]
        count_masked(u8, w, row, d, mine, theirs, w[y + slots.DATA_LEN])
        others = unlink(w, row, e)
        count(w, row, counters.RELEASED, others if side else frames)
        count(w, row, counters.MATCHED, frames if side else others)
    give_back(w, row, whole)
    if e < 0 and side == 0:
        release_counts(w, row, d, frames)
    elif e < 0:
        drop_counts(w, row, d, frames)
