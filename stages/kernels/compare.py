"""colo-compare: one burst.

Order within a burst: what was commanded (checkpoint, messages, links), then what a checkpoint flushes, then connections
that waited for room, then one packet of each side in turn, then the deadlines.  Two streams in step so meet packet by
packet, and the slot of a packet that waited for its twin is used again at once, while it is in the cache.
"""

from __future__ import annotations

from ring.atomics import be32, byte, load_acquire, put_be32, put_byte
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix, record_size
from ring.kernels.ledger import begin, blocked, commit, count, put, readable, room, scalar, true_row, undo_left
from ring.layout import (
    BLOCKED,
    CMD_CHECKPOINT,
    P_INPUTS,
    P_LINK,
    P_OUTPUTS,
    PORTS,
    R_HEADS,
    R_TAILS,
    TAIL,
    UNDO_N,
)
from stages.kernels.datagram import datagram, give_up, grace_over, leave
from stages.kernels.hold import emit_slot, finish_recycling, fits, slot, start_recycling, unlink
from stages.kernels.packet import parse
from stages.kernels.serial import after, diff
from stages.kernels.stream import release_record, service, tcp_primary, tcp_secondary
from stages.kernels.table import find, insert, remove, touch, victim
from stages.kernels.twins import take_twins
from stages.kernels.verdict import ask, diverge, write_event
from stages.layout.compare import (
    BACKPRESSURE,
    C_COMPARED,
    C_CURSOR,
    C_FLAGS,
    C_P_MAX_ACK,
    C_P_NEXT,
    C_S_MAX_ACK,
    C_VERDICT,
    C_WORK_NEXT,
    CF_DIVERGED,
    CF_P_ACK,
    CF_P_NEXT,
    CF_P_RST,
    CF_P_SYN,
    CF_S_ACK,
    CF_S_RST,
    CF_S_SYN,
    CF_SYN_MATCHED,
    CF_SYNCED,
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
    E_P_BYTES,
    E_P_LEN,
    E_S_LEN,
    EVENT_BYTES,
    LINKS_LOST,
    NOTIFY_IN,
    NOTIFY_OUT,
    NOTIFY_UNKNOWN,
    O_LOCAL,
    O_SCRATCH,
    O_STUCK,
    O_TABLE,
    O_TIMEOUT_NS,
    OUTDEV,
    PRIMARY_IN,
    R_CHECKPOINT,
    R_LINK,
    R_MESSAGE,
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
from stages.layout.packet import OTHER, TCP

_BURST = 256
_RESERVE = 512  # undo entries that one packet may need: a victim out, a connection in, its lists
_MISSES = 8  # as many failures in a row, and the inputs are not in step: no more looks for twins in this burst
_ASK = tuple(b"DO_CHECKPOINT")
_HELLO = tuple(b"COLO_COMPARE_GET_XEN_INIT")
_INIT = tuple(b"COLO_USERSPACE_PROXY_INIT")
_DONE = tuple(b"COLO_CHECKPOINT")


@hot
def connection(w, row, s, verdict, now):
    """Row of the connection whose key is at ``s``, a new one if need be; 0 while every row is in use and pinned."""
    t = w[O_TABLE]
    c = find(w, t, s)
    if c < 0:
        c = insert(w, t, s, now)
        if c < 0:
            old = victim(w, t)
            if old < 0:
                return 0
            leave(w, row, old)
            remove(w, t, old)
            count(w, row, CONNECTIONS, -1)
            count(w, row, CONNECTIONS_EVICTED, 1)
            c = insert(w, t, s, now)
        put(w, c + C_VERDICT, verdict)
        count(w, row, CONNECTIONS, 1)
        count(w, row, CONNECTIONS_OPENED, 1)
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
        c = connection(w, row, s, verdict, now)
        if c == 0:
            w[O_STUCK] |= 1 << side
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
            c = w[x + S_CONN]
            emit_slot(u8, w, row, n)
            unlink(w, row, n)
            count(w, row, RELEASED_AT_CHECKPOINT, 1)
            _in_step(w, row, c)
            continue
        n = w[scalar(row, SC_OLDEST + 1)] - 1
        if n < 0:
            return True
        c = w[slot(w, n) + S_CONN]
        unlink(w, row, n)
        count(w, row, DROPPED_AT_CHECKPOINT, 1)
        _in_step(w, row, c)
    return False


@hot
def _in_step(w, row, c):
    """The secondary is now a copy of the primary: it has sent and acknowledged what the primary has."""
    leave(w, row, c)
    state = w[c + C_FLAGS] & ~(CF_DIVERGED | CF_P_RST | CF_S_RST)
    if state & CF_P_SYN:
        state = state & ~CF_P_SYN | CF_SYN_MATCHED
    state &= ~CF_S_SYN
    if state & CF_P_NEXT and (state & CF_SYNCED == 0 or after(w[c + C_P_NEXT], w[c + C_COMPARED])):
        put(w, c + C_COMPARED, w[c + C_P_NEXT])
        state |= CF_SYNCED
    if state & CF_P_ACK and (state & CF_S_ACK == 0 or diff(w[c + C_P_MAX_ACK], w[c + C_S_MAX_ACK]) > 0):
        put(w, c + C_S_MAX_ACK, w[c + C_P_MAX_ACK])
        state |= CF_S_ACK
    put(w, c + C_FLAGS, state)
    put(w, c + C_CURSOR, 0)


@hot
def message_is(u8, at, nbytes, text):
    """Whether a notify frame of ``nbytes`` at byte ``at`` is exactly ``text``."""
    if nbytes != len(text):
        return False
    for i in range(len(text)):
        if byte(u8, at + i) != text[i]:
            return False
    return True


@hot
def hear(u8, w, row, now):
    """Take the messages on notify_dev; how many."""
    r = w[P_INPUTS + NOTIFY_IN]
    heard = 0
    while r != 0 and w[row + R_HEADS + NOTIFY_IN] < readable(w, row, NOTIFY_IN):
        position = w[row + R_HEADS + NOTIFY_IN]
        at = index(w, r, position)
        nbytes = be32(u8, at)
        if message_is(u8, at + 4, nbytes, _DONE):
            checkpoint(u8, w, row, now)
        elif message_is(u8, at + 4, nbytes, _INIT):
            w[scalar(row, SC_REPLY)] |= 2
        else:
            count(w, row, NOTIFY_UNKNOWN, 1)
            e = write_event(u8, w, row, 0, R_MESSAGE, nbytes, now)
            w[e + E_P_LEN] = nbytes  # its first bytes stand where a difference shows the primary's
            for i in range(min(nbytes, EVENT_BYTES)):
                put_byte(u8, (e + E_P_BYTES) * 8 + i, byte(u8, at + 4 + i))
        w[row + R_HEADS + NOTIFY_IN] = position + record_size(u8, w, r, position)
        count(w, row, NOTIFY_IN, 1)
        heard += 1
    return heard


@hot
def checkpoint(u8, w, row, now):
    """A checkpoint was made: answer to our request or not, everything held is settled."""
    w[scalar(row, SC_FLUSHING)] = 1
    w[scalar(row, SC_ASKED)] = 0
    w[scalar(row, SC_REPLY)] &= ~1
    count(w, row, CHECKPOINTS, 1)
    write_event(u8, w, row, 0, R_CHECKPOINT, 0, now)


@hot
def _say(u8, w, row, text):
    out = w[P_OUTPUTS + NOTIFY_OUT]
    if room(w, row, NOTIFY_OUT) < 4 + len(text):
        blocked(w, NOTIFY_OUT)
        return False
    at = index(w, out, w[row + R_TAILS + NOTIFY_OUT])
    put_be32(u8, at, len(text))
    for i in range(len(text)):
        put_byte(u8, at + 4 + i, text[i])
    w[row + R_TAILS + NOTIFY_OUT] += 4 + len(text)
    count(w, row, PORTS + NOTIFY_OUT, 1)
    return True


@hot
def speak(u8, w, row):
    """Send what is owed to notify_dev."""
    owed = w[scalar(row, SC_REPLY)]
    if w[P_OUTPUTS + NOTIFY_OUT] == 0:
        w[scalar(row, SC_REPLY)] = 0
        return
    if owed & 2 and _say(u8, w, row, _HELLO):
        w[scalar(row, SC_REPLY)] &= ~2
    if owed & 1 and _say(u8, w, row, _ASK):
        w[scalar(row, SC_REPLY)] &= ~1


@hot
def links(u8, w, row, now):
    """A link that was lost has lost packets: ask for a checkpoint.  Returns 1 where a link changed."""
    changed = 0
    for side in range(2):
        r = w[P_INPUTS + side]
        if r == 0:
            continue
        link_now, seen = load_acquire(w, r + P_LINK), w[scalar(row, SC_LINKS + side)]  # partner: the chardev's process
        if link_now == seen:
            continue
        w[scalar(row, SC_LINKS + side)] = link_now
        changed = 1
        # Odd: connected.  From connected to anything else means a loss; the first connect does not.
        if seen & 1:
            count(w, row, LINKS_LOST, 1)
            write_event(u8, w, row, 0, R_LINK, side, now)
            ask(w, row, now)
    return changed


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
            if n < 0 or now - w[slot(w, n) + S_TIME] < w[O_TIMEOUT_NS]:
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
                if w[scalar(row, SC_OLDEST + side)] == n + 1:
                    break  # no room: it stays on the work list
            elif side == 0:
                give_up(u8, w, row, n)
                leave(w, row, c)
            else:
                unlink(w, row, n)
                count(w, row, DROPPED_DIVERGED, 1)
                leave(w, row, c)
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
        if n >= 0 and now - w[slot(w, n) + S_TIME] >= w[O_TIMEOUT_NS]:
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
    if w[O_STUCK] != 0:
        work += _stuck(u8, w, row, now)
        count(w, row, BACKPRESSURE, 1)
    if w[row + R_TAILS + OUTDEV] != w[true_row(w) + R_TAILS + OUTDEV]:
        work += 1
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
    for _ in range(_BURST):
        if misses < _MISSES and undo_left(w) > _RESERVE:
            twins = take_twins(u8, w, row, now)
            if twins:
                taken += twins
                misses = 0
                continue
            misses += 1
        if primary == 1:
            primary = take(u8, w, row, PRIMARY_IN, now)
            taken += max(primary, 0)
        if secondary == 1:
            secondary = take(u8, w, row, SECONDARY_IN, now)
            taken += max(secondary, 0)
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
