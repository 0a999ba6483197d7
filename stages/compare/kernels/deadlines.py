"""What time decides: packets that have waited too long, datagrams that have differed for too long."""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import blocked, count, put, scalar, undo_left
from stages.compare.kernels.checkpoint_requests import goes_on_alone, repeat_request
from stages.compare.kernels.connections import reclassify
from stages.compare.kernels.datagrams import grace_over
from stages.compare.kernels.divergence import differs, diverge, go_on_uncompared
from stages.compare.kernels.events import write_event
from stages.compare.kernels.evidence import keep_packets
from stages.compare.kernels.fragments import remember_group
from stages.compare.kernels.grace import leave, watch
from stages.compare.kernels.release import release_held
from stages.compare.kernels.rules import stale
from stages.compare.kernels.slots import fits_slot, slot, unlink
from stages.compare.kernels.tcp_compare import service, stream_offset
from stages.compare.kernels.unfinished import settle_unfinished
from stages.compare.layout import checkpoints, conns, counters, events, memory, options, ports, reasons, scalars, slots
from stages.packets.kernels.serial import diff
from stages.packets.layout import tcp, transports


@hot
def overdue(w, n, now):
    """Whether the held packet ``n`` has waited too long, not counting when we could not read, or did not run."""
    since = max(w[slot(w, n) + slots.TIME], w[options.RESUMED], w[options.WOKE])
    return now - since >= w[options.TIMEOUT_NS]


@hot
def _reported(w, row):
    """Whether a timeout was reported already: by the request in flight, or since a request waits for its time."""
    if w[scalar(row, scalars.ASKED)] != 0:
        return True
    return (
        w[scalar(row, scalars.WANTED)] != 0
        and w[w[options.CHECKPOINTS] + checkpoints.REPORTED] == w[scalar(row, scalars.GENERATION)] + 1
    )


@hot
def _lacks_acknowledgement(w, c, x):
    """Whether the bytes of the primary's segment ``x`` were equal: the secondary has not acknowledged as much."""
    if w[c + conns.FLAGS] & conns.CF_P_SYN or w[x + slots.FLAGS] & tcp.RST:
        return False  # what it waits for is a SYN, or a reset
    return diff(w[x + slots.END], w[c + conns.COMPARED]) <= 0


@hot
def _who_waits(w, c, e, x, side):
    """Say in event ``e`` whose packets wait, and for what: of TCP, what is missing is not always the other's packet."""
    waits = side
    if w[c + conns.TRANSPORT] == transports.TCP and w[c + conns.FLAGS] & conns.CF_SYNCED:
        compared = w[c + conns.COMPARED]
        w[e + events.POSITION] = stream_offset(w, c, compared)
        p, s = w[c + conns.CURSOR] - 1, w[c + conns.HEAD + conns.SECONDARY] - 1
        mine = p >= 0 and diff(w[slot(w, p) + slots.SEQ], compared) <= 0
        theirs = s >= 0 and diff(w[slot(w, s) + slots.SEQ], compared) <= 0
        if mine and not theirs:
            waits = 0
        elif theirs and not mine:
            waits = 1
        elif not mine and side == 0 and _lacks_acknowledgement(w, c, x):
            w[e + events.OFFSET] = 1
    w[e + (events.SECONDARY_LEN if waits else events.PRIMARY_LEN)] = w[x + slots.FRAME]


@hot
def deadlines(u8, w, row, now):
    """Differences that time reveals; how many."""
    found = _grace_deadlines(u8, w, row, now)
    for side in range(2):
        goes_on = 1
        while goes_on and undo_left(w) > memory.RESERVE:
            n = w[scalar(row, scalars.OLDEST + side)] - 1
            if n < 0 or not overdue(w, n, now):
                break
            more, goes_on = _decide_overdue(u8, w, row, side, n, now)
            found += more
    return found + repeat_request(u8, w, row, now)


@hot
def _grace_deadlines(u8, w, row, now):
    """Datagram connections whose packets have differed for longer than their grace; how many."""
    found = 0
    while undo_left(w) > memory.RESERVE:
        c = w[scalar(row, scalars.GRACE_FIRST)]
        if c != 0 and stale(w, row, c):
            reclassify(w, row, c)
        elif grace_over(u8, w, row, now) <= 0:
            break
        found += 1
    return found


@hot
def _decide_overdue(u8, w, row, side, n, now):
    """The packet ``n``, the oldest of ``side``, has waited too long: (work done, whether to look on).

    What both sides have sent of a datagram that is not whole is no difference.  Else, with checkpoints, the first is
    reported, and a checkpoint settles them all.  Without (`goes_on_alone`) it is reported once a connection, and leaves
    or is dropped.
    """
    x = slot(w, n)
    c = w[x + slots.CONN]
    if stale(w, row, c):
        reclassify(w, row, c)
    if w[c + conns.FLAGS] & conns.CF_RULE:  # a new rule lets it pass
        gone = 1 if service(u8, w, row, c, now) and w[scalar(row, scalars.OLDEST + side)] != n + 1 else 0
        return gone, gone
    if w[c + conns.TRANSPORT] == transports.FRAGMENT:
        settled = settle_unfinished(u8, w, row, n)
        if settled != 0:
            return max(settled, 0), max(settled, 0)
    local, is_tcp = goes_on_alone(w, row), w[c + conns.TRANSPORT] == transports.TCP
    if not local and _reported(w, row):
        return 0, 0  # the next checkpoint will settle it
    if local and not is_tcp and side == 0 and not fits_slot(w, row, n):
        blocked(w, ports.OUTDEV)
        return 0, 0
    pair = -1
    if local and w[c + conns.FLAGS] & conns.CF_DIVERGED:  # reported, and has waited for a checkpoint that did not come
        go_on_uncompared(w, row, c)
        if not is_tcp:
            pair = w[c + conns.HEAD + (conns.SECONDARY if side == 0 else conns.PACKETS)] - 1
    elif not local or not is_tcp or w[c + conns.FLAGS] & conns.CF_PASS == 0:  # else it was reported
        _report_timeout(u8, w, row, side, n, now)
        if not local:
            put(w, w[options.CHECKPOINTS] + checkpoints.REPORTED, w[scalar(row, scalars.GENERATION)] + 1)
            differs(u8, w, row, reasons.TIMEOUT, now)
            return 1, 0
        diverge(u8, w, row, c, reasons.TIMEOUT, now)
    if is_tcp:
        service(u8, w, row, c, now)
        if w[scalar(row, scalars.OLDEST + side)] != n + 1:
            return 1, 1
        if side == 0:
            return 1, 0  # no room: it stays on the work list
        # It belongs to a life that the primary has not begun: such packets do not pass.
    _let_go(u8, w, row, side, n, now)
    if pair >= 0 and (side == 0 or fits_slot(w, row, pair)):  # the two that differed
        _let_go(u8, w, row, 1 - side, pair, now)
    return 1, 1


@hot
def _report_timeout(u8, w, row, side, n, now):
    """Write the event for packet ``n`` of ``side``, and keep the packets of its connection."""
    x = slot(w, n)
    c = w[x + slots.CONN]
    e = write_event(u8, w, row, c, reasons.TIMEOUT, -1, now)
    _who_waits(w, c, e, x, side)
    keep_packets(u8, w, row, c, e, n if side == 0 else -1, -1, n if side == 1 else -1, -1)


@hot
def _let_go(u8, w, row, side, n, now):
    """Release (primary) or drop (secondary) packet ``n``, which nothing will come for any more."""
    c = w[slot(w, n) + slots.CONN]
    remember_group(w, n, now)
    if side == 0:
        release_held(u8, w, row, n)
    else:
        count(w, row, counters.DROPPED_DIVERGED, unlink(w, row, n))
        if w[c + conns.SECONDARY_LIFE] > w[c + conns.LIFE] and w[c + conns.HEAD + conns.SECONDARY] == 0:
            # A life that is given up: the next SYN of both is a new one.
            put(w, c + conns.SECONDARY_LIFE, w[c + conns.LIFE])
    if w[c + conns.TRANSPORT] != transports.TCP:
        leave(w, row, c)
        watch(w, row, c, now)
