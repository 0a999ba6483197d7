"""IP fragments in the compare: gathered per side and datagram; the datagram is compared when it is whole.

Fragments of one side, conversation and identification hang at a *group*: the slot of the first that came, which is one
held packet in a row of its own for both sides (`S_PARTS`, `S_SIBLING`).  When no byte is missing, the datagram is put
together in another slot, which takes over the parts and goes on as a datagram of the connection with the real ports.
So a replica that fragments agrees with one that does not, and the primary's own fragments leave, in order of arrival.

A group can never be whole where fragments overlap (RFC 5722; an exact duplicate is tolerated, RFC 8200, 4.5), where one
is empty, where one that is not the last has a length that is no multiple of 8 (what follows it overlaps, or leaves a
gap), where the end is beyond 65,535 bytes or said to be at two places, and beyond MOST frames.  Such a group and one
with a fragment missing wait like any held packet: the deadline is that of the first fragment, and is a difference.
A copy of a fragment that comes when its datagram was whole begins such a group, too.

TCP put together is compared as a datagram, in a row of its own, and so is what cannot be read: the lists of a stream
hold segments of one frame each.  Stacks set DF on TCP, so that this is rare.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, common_prefix
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import blocked, count, put, undo_left
from stages.compare.kernels.connections import connection
from stages.compare.kernels.datagrams import count_masked, equal_held, watch
from stages.compare.kernels.reassembly import PLACE, put_together
from stages.compare.kernels.slots import (
    count_held,
    detach,
    emit_slot,
    fits_slot,
    give_back,
    give_parts,
    link,
    slot,
    store_frame,
    unlink,
)
from stages.compare.kernels.tcp_compare import drop_counts, release_counts, service
from stages.compare.kernels.tcp_segments import release_record
from stages.compare.layout.words import (
    C_COUNT,
    C_FLAGS,
    C_HEAD,
    C_P_ISN,
    C_P_MAX_ACK,
    C_TAIL,
    C_VERDICT,
    CF_DIVERGED,
    DROPPED_AT_CHECKPOINT,
    FRAGMENTS,
    MATCHED,
    O_MAX_QUEUE,
    O_STUCK,
    O_TIMEOUT_NS,
    OUTDEV,
    PACKETS,
    PASSES,
    RELEASED,
    RELEASED_AT_CHECKPOINT,
    RESERVE,
    S_ACK,
    S_BYTES,
    S_CONN,
    S_DATA,
    S_DATA_LEN,
    S_EMIT,
    S_END,
    S_FLAGS,
    S_FRAMES,
    S_LIFE,
    S_LIST,
    S_PARTS,
    S_PREV,
    S_SEQ,
    S_SIBLING,
    SECONDARY,
)
from stages.packets.layout.packet import (
    F_DATA_LEN,
    F_FRAG,
    F_IP_ID,
    F_IPV,
    F_L4,
    F_PORTS,
    F_PROTO,
    FRAGMENT,
    SCRATCH,
)

MOST = 128  # frames of a group: 65,535 bytes at the least MTU that anyone has (576, RFC 791) are 119
_FRAGMENTS = 1 << 40  # in the ports word of a key: a row of fragments

# Words of a fragment's slot that mean something else in a segment's (as does `PLACE`).
_IDENT = S_SEQ
# Of the group's first only:
_HERE = S_FLAGS  # bytes that are here, or _NEVER
_END = S_END  # bytes of the datagram's fragmentable part; -1: not known yet
_LAST = S_LIFE  # slot + 1 of the last part
_NEVER = -1

# Words of the row: what was settled without being whole, a word for each side.
_SETTLED = C_P_ISN  # identification + 1
_SETTLED_AT = C_P_MAX_ACK  # monotonic ns


@hot
def fragment(u8, w, row, r, position, side, s, now):
    """Take the fragment of ``side`` at ``position`` of ring ``r`` (fields at ``s``); False where it has to wait."""
    # The next header of IPv6 need not be the same in all fragments (RFC 8200, 4.5): it is no part of the key.
    w[s + F_PORTS] = _FRAGMENTS | (w[s + F_PROTO] if w[s + F_IPV] == 4 else 44) << 32
    c = connection(w, row, side, s, FRAGMENT, now)
    if c == 0:
        return False
    n = _group(w, c, SECONDARY if side else PACKETS, w[s + F_IP_ID])
    if n < 0 and _late(w, c, side, s, now):
        return _follow(u8, w, row, r, position, side)
    if n < 0 or not _has_room(u8, w, r, position, n):
        return _begin(u8, w, row, c, r, position, side, s, now)
    here = _joined(u8, w, r, position, n, s)
    if here != _NEVER and here == _end(w, n, s):
        return _complete(u8, w, row, c, r, position, side, n, s, now)
    return _append(u8, w, row, r, position, side, n, s, here, now)


@hot
def remember_group(w, n, now):
    """Note that slot ``n`` leaves or is dropped as it is; the rest of an unfinished datagram may still come."""
    x = slot(w, n)
    c = w[x + S_CONN]
    if w[c + C_VERDICT] == FRAGMENT:
        side = 1 if w[x + S_LIST] == SECONDARY else 0
        put(w, c + _SETTLED + side, w[x + _IDENT] + 1)
        put(w, c + _SETTLED_AT + side, now)


@hot
def _late(w, c, side, s, now):
    """Whether a fragment belongs to a datagram whose beginning was settled, and so can never be whole.

    Only for ``compare_timeout``: an identification is used again.  The first fragment always begins a datagram.
    After a checkpoint the secondary goes on where the primary was: it sends the rest of the primary's datagram, too.
    """
    if w[s + F_FRAG] >> 1 == 0:
        return False
    for i in range(side + 1):
        if w[c + _SETTLED + i] == w[s + F_IP_ID] + 1 and now - w[c + _SETTLED_AT + i] < w[O_TIMEOUT_NS]:
            return True
    return False


@hot
def _follow(u8, w, row, r, position, side):
    """Let a late fragment go where the rest of its datagram went."""
    if side == 0:
        if not release_record(u8, w, row, r, position):
            return False
        count(w, row, RELEASED_AT_CHECKPOINT, 1)
    else:
        count(w, row, DROPPED_AT_CHECKPOINT, 1)
    return True


@hot
def _group(w, c, which, ident):
    """The newest group with this identification in list ``which``, or -1."""
    n = w[c + C_TAIL + which] - 1
    while n >= 0 and w[slot(w, n) + _IDENT] != ident:
        n = w[slot(w, n) + S_PREV] - 1
    return n


@hot
def _has_room(u8, w, r, position, n):
    """Whether the group may have one more frame: MOST of them, and outdev must be able to take them all at once."""
    x = slot(w, n)
    out = w[layout.OUTPUTS + OUTDEV]
    size = prefix(w, out) + be32(u8, index(w, r, position))
    return w[x + S_FRAMES] < MOST and w[x + S_EMIT] + size <= w[out + layout.SIZE]


@hot
def _end(w, n, s):
    """Where the datagram of group ``n`` ends as far as the group and the fragment at ``s`` know, or -1."""
    return w[slot(w, n) + _END] if w[s + F_FRAG] & 1 else (w[s + F_FRAG] >> 1) + w[s + F_DATA_LEN]


@hot
def _joined(u8, w, r, position, n, s):
    """Bytes that are here when the fragment at ``s`` has joined group ``n``, or _NEVER."""
    x = slot(w, n)
    here, end = w[x + _HERE], _end(w, n, s)
    start, length = w[s + F_FRAG] >> 1, w[s + F_DATA_LEN]
    if here == _NEVER or length == 0 or (w[x + _END] >= 0 and w[x + _END] != end):
        return _NEVER
    if end >= 0 and start + length > end:
        return _NEVER
    at = index(w, r, position)
    lead = prefix(w, r)
    payload = at + lead + (be32(u8, at + 4) if lead == 8 else 0) + w[s + F_L4]
    again = False
    part = w[x + S_PARTS]
    while part != 0:
        y = slot(w, part - 1)
        first, size = w[y + PLACE] >> 1, w[y + S_DATA_LEN]
        if w[y + PLACE] == w[s + F_FRAG] and size == length:
            if common_prefix(u8, w[y + S_BYTES] + w[y + S_DATA], payload, length) < length:
                return _NEVER  # which of the two counts is the receiver's choice
            again = True
        elif (first < start + length and start < first + size) or (end >= 0 and first + size > end):
            return _NEVER
        part = w[y + S_SIBLING]
    return here if again else here + length


@hot
def _store(u8, w, row, r, position, side, s, now):
    m = store_frame(u8, w, row, r, position, side, s, now)
    if m < 0:
        w[O_STUCK] |= 1 << side
        return -1
    x = slot(w, m)
    w[x + _IDENT] = w[s + F_IP_ID]
    w[x + PLACE] = w[s + F_FRAG]
    return m


@hot
def _begin(u8, w, row, c, r, position, side, s, now):
    """Begin a group with the fragment at ``s``."""
    which = SECONDARY if side else PACKETS
    if w[c + C_COUNT + which] >= w[O_MAX_QUEUE]:
        w[O_STUCK] |= 1 << side
        return False
    m = _store(u8, w, row, r, position, side, s, now)
    if m < 0:
        return False
    x = slot(w, m)
    w[x + S_PARTS] = m + 1
    w[x + _LAST] = m + 1
    w[x + _HERE] = w[s + F_DATA_LEN] if w[s + F_DATA_LEN] > 0 else _NEVER
    w[x + _END] = -1 if w[s + F_FRAG] & 1 else (w[s + F_FRAG] >> 1) + w[s + F_DATA_LEN]
    link(w, row, c, which, m, False)
    return True


@hot
def _append(u8, w, row, r, position, side, n, s, here, now):
    """Add the fragment at ``s`` to group ``n``, of which ``here`` bytes are then there."""
    m = _store(u8, w, row, r, position, side, s, now)
    if m < 0:
        return False
    x = slot(w, n)
    put(w, slot(w, w[x + _LAST] - 1) + S_SIBLING, m + 1)
    put(w, x + _LAST, m + 1)
    put(w, x + _HERE, here)
    put(w, x + _END, _end(w, n, s))
    put(w, x + S_FRAMES, w[x + S_FRAMES] + 1)
    put(w, x + S_EMIT, w[x + S_EMIT] + w[slot(w, m) + S_EMIT])
    count_held(w, row, side, 1)
    return True


@hot
def _complete(u8, w, row, c, r, position, side, n, s, now):
    """The last missing fragment of group ``n``: compare the datagram."""
    b = s + SCRATCH
    m = _store(u8, w, row, r, position, side, s, now)
    if m < 0:
        return False
    whole = put_together(u8, w, row, side, n, m, _end(w, n, s), b, now)
    if whole == -1:
        w[O_STUCK] |= 1 << side
        give_back(w, row, m)
        return False
    if whole < 0:
        give_back(w, row, m)
        return _append(u8, w, row, r, position, side, n, s, _NEVER, now)
    x, y = slot(w, n), slot(w, whole)
    frames = w[x + S_FRAMES] + 1
    w[y + S_FRAMES] = frames
    w[y + S_EMIT] = w[x + S_EMIT] + w[slot(w, m) + S_EMIT]
    d, e = 0, -1
    if undo_left(w) >= RESERVE // 2:
        d = connection(w, row, side, b, w[y + S_ACK], now)
    if d != 0:
        e = _counterpart(u8, w, row, d, side, whole, now)
    if d == 0 or e == -2:
        give_back(w, row, m)
        give_back(w, row, whole)
        return False
    put(w, slot(w, w[x + _LAST] - 1) + S_SIBLING, m + 1)
    w[y + S_PARTS] = n + 1
    detach(w, row, n)
    count(w, row, FRAGMENTS, frames)
    _settle(u8, w, row, d, side, whole, e)
    watch(w, row, d, now)
    return True


@hot
def _counterpart(u8, w, row, d, side, whole, now):
    """The slot of the other side equal to ``whole``; -1: there is none; -2: want of room, the fragment has to wait."""
    which, other = (SECONDARY, PACKETS) if side else (PACKETS, SECONDARY)
    y = slot(w, whole)
    e = -1
    leaves = w[d + C_FLAGS] & PASSES != 0
    if not leaves and w[d + C_FLAGS] & CF_DIVERGED == 0:
        e = equal_held(u8, w, d, other, w[y + S_BYTES] + w[y + S_DATA], w[y + S_DATA_LEN])
    if leaves and side == 0 and w[d + C_HEAD + PACKETS] != 0 and not service(u8, w, row, d, now):
        return -2  # what was held of it leaves before it
    if e >= 0 or leaves:
        if (side == 0 and not fits_slot(w, row, whole)) or (side == 1 and e >= 0 and not fits_slot(w, row, e)):
            blocked(w, OUTDEV)
            return -2
    elif w[d + C_COUNT + which] >= w[O_MAX_QUEUE]:
        w[O_STUCK] |= 1 << side
        return -2
    return e


@hot
def _settle(u8, w, row, d, side, whole, e):
    """Release, drop or hold the datagram ``whole`` of connection ``d``; its equal is the held packet ``e``, or -1."""
    y = slot(w, whole)
    frames = w[y + S_FRAMES]
    if e < 0 and w[d + C_FLAGS] & PASSES == 0:
        if side == 1:  # its fragments never leave
            give_parts(w, row, whole)
            w[y + S_PARTS] = 0
        link(w, row, d, SECONDARY if side else PACKETS, whole, False)
        return
    if side == 0:
        emit_slot(u8, w, row, whole)
    elif e >= 0:
        emit_slot(u8, w, row, e)
    if e >= 0:
        x = slot(w, e)
        mine, theirs = w[x + S_BYTES] + w[x + S_DATA], w[y + S_BYTES] + w[y + S_DATA]
        count_masked(u8, w, row, d, mine, theirs, w[y + S_DATA_LEN])
        others = unlink(w, row, e)
        count(w, row, RELEASED, others if side else frames)
        count(w, row, MATCHED, frames if side else others)
    give_back(w, row, whole)
    if e < 0 and side == 0:
        release_counts(w, row, d, frames)
    elif e < 0:
        drop_counts(w, row, d, frames)
