"""colo-compare: one burst.

Order within a burst: what was commanded (checkpoint, messages, links), then what a checkpoint flushes, then connections
that waited for room, then one packet of each side in turn, then the deadlines.  Two streams in step so meet packet by
packet, and the slot of a packet that waited for its twin is used again at once, while it is in the cache.
"""

from __future__ import annotations

from ring.atomics import be32, load_acquire
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import begin, blocked, commit, count, put, readable, scalar, true_row, undo_left
from ring.layout import BLOCKED, CMD_CHECKPOINT, P_INPUTS, P_LINK, R_COUNTERS, R_HEADS, R_TAILS, TAIL, UNDO_N
from stages.kernels.datagram import datagram, give_up, grace_over, leave, watch
from stages.kernels.hold import emit_slot, finish_recycling, fits, slot, start_recycling, unlink
from stages.kernels.life import in_step
from stages.kernels.notify import checkpoint, hear, links, speak
from stages.kernels.packet import parse
from stages.kernels.service import service
from stages.kernels.stream import release_record, tcp_primary, tcp_secondary
from stages.kernels.table import find, insert, remove, remove_cost, touch, victim
from stages.kernels.twins import PRIMARY_AHEAD, SECONDARY_AHEAD, take_twins
from stages.kernels.verdict import ask, diverge, write_event
from stages.layout.compare import (
    BACKPRESSURE,
    C_EPOCH,
    C_FLAGS,
    C_VERDICT,
    C_WORK_NEXT,
    CF_WORK,
    CHECKPOINTS,
    CHECKPOINTS_ASKED_AGAIN,
    CONNECTIONS,
    CONNECTIONS_EVICTED,
    CONNECTIONS_OPENED,
    DIVERGED_STUCK,
    DIVERGENCES,
    DROPPED_AT_CHECKPOINT,
    DROPPED_DIVERGED,
    DROPPED_UNCOMPARED,
    E_P_LEN,
    E_S_LEN,
    HELD,
    O_FULL_SINCE,
    O_LOCAL,
    O_RESUMED,
    O_SCRATCH,
    O_STUCK,
    O_TABLE,
    O_TIMEOUT_NS,
    OUTDEV,
    PRIMARY_IN,
    R_STUCK,
    R_TIMEOUT,
    RELEASED_AT_CHECKPOINT,
    RELEASED_UNCOMPARED,
    S_CONN,
    S_FRAME,
    S_SEQ,
    S_TIME,
    SC_ASKED,
    SC_CHECKPOINTS_SEEN,
    SC_FLUSHING,
    SC_GRACE_FIRST,
    SC_LINKS,
    SC_OLDEST,
    SC_REPLY,
    SC_WORK,
    SECONDARY_IN,
)
from stages.layout.packet import F_PORTS, FRAGMENT, OTHER, TCP
from stages.layout.table import R_PINNED

_BURST = 256
_HELD = R_COUNTERS + HELD
_RESERVE = 512  # undo entries that one packet may need: a victim out, a connection in, its lists
_MISSES = 8  # as many failures in a row, and the inputs are not in step: no more looks for twins in this burst


@hot
def connection(w, row, side, s, verdict, now):
    """Row of the connection whose key is at ``s``, a new one if need be; 0 while there is none to be had."""
    t = w[O_TABLE]
    c = find(w, t, s)
    if c < 0:
        c = insert(w, t, s, now)
        if c < 0:
            old = victim(w, t)
            if old < 0:
                w[O_STUCK] |= 1 << side
                return 0
            if undo_left(w) < remove_cost(w, t, old) + _RESERVE // 2:
                return 0  # a long run of buckets: in the next burst, with an empty log
            leave(w, row, old)
            remove(w, t, old)
            count(w, row, CONNECTIONS, -1)
            count(w, row, CONNECTIONS_EVICTED, 1)
            c = insert(w, t, s, now)
        put(w, c + C_VERDICT, verdict)
        count(w, row, CONNECTIONS, 1)
        count(w, row, CONNECTIONS_OPENED, 1)
        put(w, c + C_EPOCH, w[row + R_COUNTERS + CHECKPOINTS])
    elif w[c + C_EPOCH] != w[row + R_COUNTERS + CHECKPOINTS]:
        in_step(w, row, c)
    touch(w, c, now)
    return c


@hot
def take(u8, w, row, side, now):
    """Take one packet of ``side`` from its ring: 1 taken, 0 nothing there, -1 it has to wait."""
    r = w[P_INPUTS + side]
    position = w[row + R_HEADS + side]
    if r == 0 or position == readable(w, row, side):
        return 0
    if undo_left(w) < _RESERVE:
        return -1
    at = index(w, r, position)
    lead = prefix(w, r)
    nbytes = be32(u8, at)
    vnet = be32(u8, at + 4) if lead == 8 else 0
    s = w[O_SCRATCH]
    verdict = parse(u8, w, at + lead + vnet, nbytes - vnet, s)
    if verdict == OTHER:
        if side == PRIMARY_IN:
            if not release_record(u8, w, row, r, position):
                return -1
            count(w, row, RELEASED_UNCOMPARED, 1)
        else:
            count(w, row, DROPPED_UNCOMPARED, 1)
    else:
        if verdict == FRAGMENT:
            w[s + F_PORTS] |= 1 << 40  # a conversation of its own, not that of ports 0 and 0
        c = connection(w, row, side, s, verdict, now)
        if c == 0:
            return -1
        if verdict != TCP:
            taken = datagram(u8, w, row, c, r, position, side, s, now)
        elif side == PRIMARY_IN:
            taken = tcp_primary(u8, w, row, c, r, position, s, now)
        else:
            taken = tcp_secondary(u8, w, row, c, r, position, s, now)
        if not taken:
            return -1
    w[row + R_HEADS + side] = position + lead + nbytes
    count(w, row, side, 1)
    return 1


@hot
def go_on(u8, w, row, now):
    """Let the connections on the work list go on; True when the list is empty."""
    while w[scalar(row, SC_WORK)] != 0:
        if undo_left(w) < _RESERVE:
            return False
        c = w[scalar(row, SC_WORK)]
        w[scalar(row, SC_WORK)] = w[c + C_WORK_NEXT]
        put(w, c + C_FLAGS, w[c + C_FLAGS] & ~CF_WORK)
        put(w, c + R_PINNED, w[c + R_PINNED] - 1)
        if not service(u8, w, row, c, now):
            return False
    return True


@hot
def flush(u8, w, row):
    """After a checkpoint the replicas are equal: release what the primary said, drop what the secondary said.

    True when nothing is held any more.
    """
    while undo_left(w) > _RESERVE:
        n = w[scalar(row, SC_OLDEST)] - 1
        if n >= 0:
            x = slot(w, n)
            if not fits(w, row, w[x + S_FRAME]):
                blocked(w, OUTDEV)
                return False
            leave(w, row, w[x + S_CONN])
            emit_slot(u8, w, row, n)
            unlink(w, row, n)
            count(w, row, RELEASED_AT_CHECKPOINT, 1)
            continue
        n = w[scalar(row, SC_OLDEST + 1)] - 1
        if n < 0:
            return True
        leave(w, row, w[slot(w, n) + S_CONN])
        unlink(w, row, n)
        count(w, row, DROPPED_AT_CHECKPOINT, 1)
    return False


@hot
def overdue(w, n, now):
    """Whether the held packet ``n`` has waited too long, not counting what a full outdev kept us from reading."""
    return now - max(w[slot(w, n) + S_TIME], w[O_RESUMED]) >= w[O_TIMEOUT_NS]


@hot
def deadlines(u8, w, row, now):
    """Differences that time reveals; how many."""
    found = 0
    while undo_left(w) > _RESERVE:
        done = grace_over(u8, w, row, now)
        if done <= 0:
            break
        found += 1
    for side in range(2):
        while undo_left(w) > _RESERVE:
            n = w[scalar(row, SC_OLDEST + side)] - 1
            if n < 0 or not overdue(w, n, now):
                break
            x = slot(w, n)
            c = w[x + S_CONN]
            if w[O_LOCAL] == 0 and w[scalar(row, SC_ASKED)] != 0:
                break  # the request in flight will settle it
            if w[O_LOCAL] != 0 and w[c + C_VERDICT] != TCP and side == 0 and not fits(w, row, w[x + S_FRAME]):
                blocked(w, OUTDEV)
                break
            e = write_event(u8, w, row, c, R_TIMEOUT, w[x + S_SEQ], now)
            w[e + (E_S_LEN if side else E_P_LEN)] = w[x + S_FRAME]
            found += 1
            if w[O_LOCAL] == 0:
                count(w, row, DIVERGENCES, 1)
                count(w, row, DIVERGENCES + R_TIMEOUT, 1)
                ask(w, row, now)
                break
            diverge(w, row, c, R_TIMEOUT, now)
            if w[c + C_VERDICT] == TCP:
                service(u8, w, row, c, now)
                if w[scalar(row, SC_OLDEST + side)] != n + 1:
                    continue
                if side == 0:
                    break  # no room: it stays on the work list
                # Of a life that the primary has not begun: such packets do not pass.
            if side == 0:
                give_up(u8, w, row, n)
            else:
                unlink(w, row, n)
                count(w, row, DROPPED_DIVERGED, 1)
            if w[c + C_VERDICT] != TCP:
                leave(w, row, c)
                watch(w, row, c, now)
    asked = w[scalar(row, SC_ASKED)]
    if asked != 0 and now - asked >= w[O_TIMEOUT_NS]:
        w[scalar(row, SC_ASKED)] = now
        w[scalar(row, SC_REPLY)] |= 1
        count(w, row, CHECKPOINTS_ASKED_AGAIN, 1)
        found += 1
    return found


@hot
def due(w, now):
    """Whether there is anything to do: asked before a burst is opened."""
    row = true_row(w)
    for i in range(3):
        r = w[P_INPUTS + i]
        if r != 0 and load_acquire(w, r + TAIL) != w[row + R_HEADS + i]:
            return True
    for side in range(2):
        r = w[P_INPUTS + side]
        if r != 0 and load_acquire(w, r + P_LINK) != w[scalar(row, SC_LINKS + side)]:
            return True
        n = w[scalar(row, SC_OLDEST + side)] - 1
        if n >= 0 and overdue(w, n, now):
            return True
    asked = w[scalar(row, SC_ASKED)]
    return (
        w[scalar(row, SC_WORK)] != 0
        or w[scalar(row, SC_GRACE_FIRST)] != 0
        or w[scalar(row, SC_FLUSHING)] != 0
        or w[scalar(row, SC_REPLY)] != 0
        or (asked != 0 and now - asked >= w[O_TIMEOUT_NS])
        or load_acquire(w, CMD_CHECKPOINT) != w[scalar(row, SC_CHECKPOINTS_SEEN)]  # partner: the supervisor
    )


@kernel
def compare_burst(u8, w, now):
    """One burst of both sides."""
    w[BLOCKED] = 0
    if not due(w, now):
        return 0
    row = begin(w)
    start_recycling(w)
    w[O_STUCK] = 0
    work = links(u8, w, row, now) + hear(u8, w, row, now)
    if load_acquire(w, CMD_CHECKPOINT) != w[scalar(row, SC_CHECKPOINTS_SEEN)]:  # partner: the supervisor
        w[scalar(row, SC_CHECKPOINTS_SEEN)] = w[CMD_CHECKPOINT]
        checkpoint(u8, w, row, now)
        work += 1
    if w[scalar(row, SC_FLUSHING)] != 0 and flush(u8, w, row):
        w[scalar(row, SC_FLUSHING)] = 0
        work += 1
    if w[scalar(row, SC_FLUSHING)] == 0 and go_on(u8, w, row, now):
        work += _alternate(u8, w, row, now) + deadlines(u8, w, row, now)
    owed = w[scalar(row, SC_REPLY)]
    speak(u8, w, row)
    if w[scalar(row, SC_REPLY)] != owed:
        work += 1
    old, full = true_row(w), w[BLOCKED] >> OUTDEV & 1
    if w[row + R_TAILS + OUTDEV] != w[old + R_TAILS + OUTDEV] or w[row + _HELD] != w[old + _HELD]:
        work += 1
    if w[scalar(row, SC_WORK)] != 0 and full == 0:
        work += 1  # the undo log ended this burst, not a want of room
    if full == 0:
        w[O_FULL_SINCE] = 0
    elif w[O_FULL_SINCE] == 0:
        w[O_FULL_SINCE] = now
    elif now - w[O_FULL_SINCE] >= w[O_TIMEOUT_NS] // 2:
        w[O_RESUMED] = now
    if w[O_STUCK] != 0:
        if work == 0:
            work += _stuck(u8, w, row, now)
        count(w, row, BACKPRESSURE, 1)
    if work == 0 and w[UNDO_N] == 0:
        return 0
    # Without work there may still be marks to commit (a connection on the work list): done, but idle.
    finish_recycling(w, row)
    return commit(w, row, now, work)


@hot
def _alternate(u8, w, row, now):
    taken = 0
    primary = secondary = 1
    misses = 0
    catch_up = True
    for _ in range(_BURST):
        ahead = 0
        if misses < _MISSES and undo_left(w) > _RESERVE:
            twins = take_twins(u8, w, row, now)
            if twins > 0:
                taken += twins
                misses = 0
                continue
            if catch_up:
                ahead = twins
            misses += 1 if ahead == 0 else 0
        held = w[row + R_COUNTERS + HELD]
        if primary == 1 and ahead != PRIMARY_AHEAD:
            primary = take(u8, w, row, PRIMARY_IN, now)
            taken += max(primary, 0)
        if secondary == 1 and ahead != SECONDARY_AHEAD:
            secondary = take(u8, w, row, SECONDARY_IN, now)
            taken += max(secondary, 0)
        # One side alone is taken from only while that settles what the other has waiting.
        catch_up = catch_up and (ahead == 0 or w[row + R_COUNTERS + HELD] < held)
        if (primary != 1 and secondary != 1) or w[scalar(row, SC_WORK)] != 0:
            break
    return taken


@hot
def _stuck(u8, w, row, now):
    """A queue is full, so an input waits: back-pressure.  Where both wait for one another, only a checkpoint helps."""
    if w[O_STUCK] != 3 or w[scalar(row, SC_ASKED)] != 0 or w[O_LOCAL] != 0:
        return 0
    count(w, row, DIVERGENCES, 1)
    count(w, row, DIVERGED_STUCK, 1)
    write_event(u8, w, row, 0, R_STUCK, 0, now)
    ask(w, row, now)
    return 1
