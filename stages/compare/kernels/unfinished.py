"""Datagrams that never become whole: what both replicas have sent of one is no difference where it is the same.

A sender may be cut off, or a capture lack a frame: then both sides hold a group (`stages.compare.kernels.fragments`)
that nothing completes.  At the deadline of the one, or where both inputs wait for want of room, the other side's groups
of that conversation are looked through for an equal one, the oldest first; both are settled.  Nothing is remembered of
them: what comes later is a group of its own, and compared like these.  So nothing leaves that only one side has sent,
whenever it comes.

Two groups without overlaps are equal where the same bytes are here and the same end is known, however each replica cut
its datagram, in whatever order the pieces came and whether a piece came twice.  Of pieces that overlap it is the
receiver's choice which one counts (RFC 5722): there the sets of fragments are equal.  The identification may differ.
"""

from __future__ import annotations

from ring.atomics import byte, common_prefix
from ring.hot import hot
from ring.kernels.ledger import blocked, count, scalar
from stages.compare.kernels.slots import emit_slot, fits_slot, slot, unlink
from stages.compare.layout import conns, counters, options, ports, scalars, slots
from stages.packets.layout import networks, parsed, rows, transports


@hot
def settle_unfinished(u8, w, row, n):
    """Settle group ``n`` where the other side has an equal one: 1; 0: it has none; -1: want of room in outdev."""
    x = slot(w, n)
    c = w[x + slots.CONN]
    mine = w[x + slots.LIST]
    other = conns.PACKETS if mine == conns.SECONDARY else conns.SECONDARY
    m = w[c + conns.HEAD + other] - 1
    while m >= 0 and not _equal(u8, w, n, m):
        m = w[slot(w, m) + slots.NEXT] - 1
    if m < 0:
        return 0
    primary, secondary = (m, n) if mine == conns.SECONDARY else (n, m)
    if not fits_slot(w, row, primary):
        blocked(w, ports.OUTDEV)
        return -1
    emit_slot(u8, w, row, primary)
    released, matched = unlink(w, row, primary), unlink(w, row, secondary)
    count(w, row, counters.RELEASED, released)
    count(w, row, counters.MATCHED, matched)
    count(w, row, counters.FRAGMENTS_UNFINISHED, released + matched)
    w[options.ANSWERED] = 1
    return 1


@hot
def settle_oldest_unfinished(u8, w, row):
    """Settle the primary's oldest group that the other side has, too, to make room: 1, or 0 where there is none."""
    n = w[scalar(row, scalars.OLDEST)] - 1
    while n >= 0:
        x = slot(w, n)
        if w[w[x + slots.CONN] + conns.TRANSPORT] == transports.FRAGMENT:
            settled = settle_unfinished(u8, w, row, n)
            if settled != 0:
                return max(settled, 0)
        n = w[x + slots.LATER] - 1
    return 0


@hot
def _equal(u8, w, n, m):
    """Whether both sides have sent the same of a datagram: groups ``n`` and ``m``."""
    x, y = slot(w, n), slot(w, m)
    if w[x + slots.HERE] != w[y + slots.HERE]:
        return False
    if w[x + slots.HERE] == slots.NEVER:
        return _has_each(u8, w, n, m) and _has_each(u8, w, m, n)
    # Without overlaps, and as many bytes on both sides: where one has all bytes of the other, it has no more.
    return w[x + slots.WHOLE] == w[y + slots.WHOLE] and _covers(u8, w, n, m)


@hot
def _has_each(u8, w, n, m):
    """Whether group ``m`` has an equal of every fragment of group ``n``."""
    part = w[slot(w, n) + slots.PARTS]
    while part != 0:
        x = slot(w, part - 1)
        size = w[x + slots.DATA_LEN]
        other = w[slot(w, m) + slots.PARTS]
        while other != 0:
            y = slot(w, other - 1)
            if w[y + slots.PLACE] == w[x + slots.PLACE] and w[y + slots.DATA_LEN] == size:
                if _same_bytes(u8, w, x, y, w[x + slots.PLACE] >> 1, size):
                    break
            other = w[y + slots.SIBLING]
        if other == 0:
            return False
        part = w[x + slots.SIBLING]
    return True


@hot
def _covers(u8, w, n, m):
    """Whether group ``m`` has every byte of group ``n``, at the same place; neither has overlaps."""
    part = w[slot(w, n) + slots.PARTS]
    while part != 0:
        x = slot(w, part - 1)
        at = w[x + slots.PLACE] >> 1
        end = at + w[x + slots.DATA_LEN]
        while at < end:
            y = _at(w, m, at)
            if y == 0:
                return False
            size = min(end, (w[y + slots.PLACE] >> 1) + w[y + slots.DATA_LEN]) - at
            if not _same_bytes(u8, w, x, y, at, size):
                return False
            at += size
        part = w[x + slots.SIBLING]
    return True


@hot
def _at(w, m, at):
    """Words of the fragment of group ``m`` that has byte ``at`` of the datagram, or 0."""
    part = w[slot(w, m) + slots.PARTS]
    while part != 0:
        y = slot(w, part - 1)
        start = w[y + slots.PLACE] >> 1
        if start <= at < start + w[y + slots.DATA_LEN]:
            return y
        part = w[y + slots.SIBLING]
    return 0


@hot
def _same_bytes(u8, w, x, y, at, size):
    """Whether the fragments at words ``x`` and ``y`` have the same ``size`` bytes from byte ``at`` of theirs on."""
    a = w[x + slots.BYTES] + w[x + slots.DATA] + at - (w[x + slots.PLACE] >> 1)
    b = w[y + slots.BYTES] + w[y + slots.DATA] + at - (w[y + slots.PLACE] >> 1)
    if common_prefix(u8, a, b, size) < size:
        return False
    # Of IPv6 the first fragment says what the datagram is (RFC 8200, 4.5); of IPv4 all do, and it is in the key.
    return at != 0 or not _of_ipv6(w, x) or byte(u8, a - 8) == byte(u8, b - 8)


@hot
def _of_ipv6(w, x):
    # A fragment that joined a group is in no list, but knows its connection.
    return w[w[x + slots.CONN] + rows.KEY + parsed.VLAN] >> networks.VERSION_AT & networks.VERSION == 6
