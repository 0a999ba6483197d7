"""colo-compare: one burst.

Order within a burst: what was said (messages, links, commands), then what a checkpoint flushes, then connections
that waited for room, then one packet of each side in turn, then the deadlines.  Two streams in step so meet packet by
packet, and the slot of a packet that waited for its twin is used again at once, while it is in the cache.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot, kernel
from ring.kernels.frames import frame_at, index
from ring.kernels.ledger import begin, commit, count, put, readable, scalar, true_row, undo_left
from stages.compare.kernels.arming import arrives, awaited, deserted, failovers, links
from stages.compare.kernels.checkpoint_requests import (
    asked,
    give_up,
    giving_up_due,
    goes_on_alone,
    joins,
    note_joined,
    plan_giving_up,
    request_due,
)
from stages.compare.kernels.connections import connection
from stages.compare.kernels.datagrams import datagram
from stages.compare.kernels.deadlines import deadlines, overdue
from stages.compare.kernels.divergence import differs
from stages.compare.kernels.events import write_event
from stages.compare.kernels.evidence import note_packet
from stages.compare.kernels.flush import flush
from stages.compare.kernels.fragments import fragment
from stages.compare.kernels.notify import checkpoint, hear, speak
from stages.compare.kernels.release import release_packet
from stages.compare.kernels.rules import rules_due, take_rules
from stages.compare.kernels.silence import answers, note_taken, silence_due, watch_silence
from stages.compare.kernels.slots import finish_recycling, start_recycling
from stages.compare.kernels.tcp_compare import drop_counts, release_counts, service
from stages.compare.kernels.tcp_segments import note_primary, tcp_primary, tcp_secondary
from stages.compare.kernels.twins import PRIMARY_AHEAD, SECONDARY_AHEAD, take_twins
from stages.compare.kernels.uncompared import count_uncompared, never_compared
from stages.compare.kernels.unfinished import settle_oldest_unfinished
from stages.compare.layout import arming, checkpoints, conns, counters, memory, options, ports, reasons, scalars
from stages.packets.kernels.tunnels import read_packet
from stages.packets.layout import parsed, rows, transports

_BURST = 256
_MISSES = 8  # as many failures in a row, and the inputs are not in step: no more looks for twins in this burst


@hot
def take(u8, w, row, side, now):
    """Take one packet of ``side`` from its ring: 1 taken, 0 nothing there, -1 it has to wait."""
    r = w[layout.INPUTS + side]
    position = w[row + layout.ROW_HEADS + side]
    if r == 0 or position == readable(w, row, side):
        return 0
    if undo_left(w) < memory.RESERVE:
        return -1
    at = index(w, r, position)
    frame, length = frame_at(u8, w, r, at)
    state = w[scalar(row, scalars.ARMING)]
    unarmed = side == ports.SECONDARY_IN and state != arming.IN_STEP
    if not unarmed or state == arming.SILENT:
        s = w[options.SCRATCH]
        transport = read_packet(u8, w, frame, length, s, w[options.TUNNELS])
        w[s + parsed.RING] = r
        w[s + parsed.POSITION] = position
        w[s + parsed.FRAME] = frame
        w[s + parsed.LENGTH] = length
        if unarmed and not never_compared(u8, w, s, frame, transport) and answers(w, row, s, transport):
            # What it answers has left uncompared, unless a checkpoint was made since.
            unarmed = w[w[options.CHECKPOINTS] + checkpoints.MISSED] != 0
            arrives(u8, w, row, now)
        if not unarmed and not _dispatch(u8, w, row, side, s, transport, now):
            return -1
    if unarmed:
        count(w, row, counters.DROPPED_UNARMED, 1)
    w[row + layout.ROW_HEADS + side] = position + frame + length - at
    count(w, row, side, 1)
    return 1


@hot
def _dispatch(u8, w, row, side, s, transport, now):
    """Take the packet at hand, of ``side`` (fields at ``s``); False where it has to wait in its ring."""
    frame = w[s + parsed.FRAME]
    if never_compared(u8, w, s, frame, transport):
        if side == ports.SECONDARY_IN:
            count(w, row, counters.DROPPED_UNCOMPARED, 1)
        elif not _release_as(u8, w, row, s, counters.RELEASED_UNCOMPARED):
            return False
        elif transport > transports.FRAGMENT:  # of a service, unlike what has no IP
            _note_missed(w, row)
        count_uncompared(w, row, transport)
        return True
    if w[scalar(row, scalars.ARMING)] != arming.IN_STEP:
        return _unarmed(u8, w, row, s, transport, now)
    if transport == transports.FRAGMENT:
        return fragment(u8, w, row, side, s, now)
    c = connection(w, row, side, s, transport, now)
    if c == 0:
        return False
    note_packet(u8, w, row, side, c, w[s + parsed.FRAME], w[s + parsed.LENGTH], now)
    if transport == transports.TCP:
        if side == ports.PRIMARY_IN:
            return tcp_primary(u8, w, row, c, s, now)
        return tcp_secondary(u8, w, row, c, s, now)
    if w[c + conns.FLAGS] & conns.CF_RULE:
        return _by_rule(u8, w, row, c, side, s, now)
    return datagram(u8, w, row, c, side, s, now)


@hot
def _release_as(u8, w, row, s, counter):
    if not release_packet(u8, w, row, s):
        return False
    count(w, row, counter, 1)
    return True


@hot
def _note_missed(w, row):
    """Note, while no secondary is in step, that the primary has said something that it has not."""
    missed = w[options.CHECKPOINTS] + checkpoints.MISSED
    if w[scalar(row, scalars.ARMING)] != arming.IN_STEP and w[missed] == 0:
        put(w, missed, 1)


@hot
def _unarmed(u8, w, row, s, transport, now):
    """No secondary is in step: the primary's packet leaves, and its numbers are noted for when one is."""
    if awaited(w, row, now):
        return False
    _note_missed(w, row)
    # Of a silent secondary also what it could answer is noted: `answers`.
    silent = w[scalar(row, scalars.ARMING)] == arming.SILENT and transport != transports.FRAGMENT
    if transport == transports.TCP or silent:
        c = connection(w, row, ports.PRIMARY_IN, s, transport, now)
        if c != 0 and transport == transports.TCP and not note_primary(w, row, c, s):
            return False
    return _release_as(u8, w, row, s, counters.RELEASED_UNARMED)


@hot
def _by_rule(u8, w, row, c, side, s, now):
    """A datagram of a connection that a rule lets pass; what was held of it leaves before it."""
    if side == ports.SECONDARY_IN:
        drop_counts(w, row, c, 1)
        return True
    if w[c + conns.HEAD + conns.PACKETS] != 0 and not service(u8, w, row, c, now):
        return False
    if not release_packet(u8, w, row, s):
        return False
    release_counts(w, row, c, 1)
    return True


@hot
def go_on(u8, w, row, now):
    """Let the connections on the work list go on; True when the list is empty."""
    while w[scalar(row, scalars.WORK)] != 0:
        if undo_left(w) < memory.RESERVE:
            return False
        c = w[scalar(row, scalars.WORK)]
        w[scalar(row, scalars.WORK)] = w[c + conns.WORK_NEXT]
        put(w, c + conns.FLAGS, w[c + conns.FLAGS] & ~conns.CF_WORK)
        put(w, c + rows.PINNED, w[c + rows.PINNED] - 1)
        if not service(u8, w, row, c, now):
            return False
    return True


@hot
def due(w, now):
    """Whether there is anything to do: asked before a burst is opened."""
    row = true_row(w)
    for i in range(3):
        r = w[layout.INPUTS + i]
        if r != 0 and load_acquire(w, r + layout.TAIL) != w[row + layout.ROW_HEADS + i]:
            return True
    for side in range(2):
        r = w[layout.INPUTS + side]
        if r != 0 and load_acquire(w, r + layout.P_LINK) != w[scalar(row, scalars.LINKS + side)]:
            return True
        n = w[scalar(row, scalars.OLDEST + side)] - 1
        if n >= 0 and overdue(w, n, now):
            return True
    return (
        w[scalar(row, scalars.WORK)] != 0
        or w[scalar(row, scalars.GRACE_FIRST)] != 0
        or w[scalar(row, scalars.FLUSHING)] != 0
        or w[scalar(row, scalars.REPLY)] != 0
        or request_due(w, row, now)
        or giving_up_due(w, row, now)
        or silence_due(w, row, now)
        or joins(w, row)
        or deserted(w, row)
        # Partner of these three: the supervisor.
        or load_acquire(w, layout.CMD_CHECKPOINT) != w[scalar(row, scalars.CHECKPOINTS_SEEN)]
        or load_acquire(w, layout.CMD_FAILOVER) != w[scalar(row, scalars.FAILOVERS_SEEN)]
        or rules_due(w, row)
    )


@kernel
def compare_burst(u8, w, now):
    """One burst of both sides."""
    w[layout.BLOCKED] = 0
    if not due(w, now):
        return 0
    row = begin(w)
    start_recycling(w)
    w[options.STUCK] = 0
    w[options.ANSWERED] = 0
    # Messages before links: which came first is not known, and a checkpoint before a loss makes no copy after it.
    work = take_rules(w, row) + hear(u8, w, row, now) + links(u8, w, row, now) + failovers(u8, w, row, now)
    if load_acquire(w, layout.CMD_CHECKPOINT) != w[scalar(row, scalars.CHECKPOINTS_SEEN)]:  # partner: the supervisor
        w[scalar(row, scalars.CHECKPOINTS_SEEN)] = w[layout.CMD_CHECKPOINT]
        checkpoint(u8, w, row, now)
        work += 1
    work += note_joined(w, row, now) + give_up(u8, w, row, now)
    if w[scalar(row, scalars.FLUSHING)] != 0 and flush(u8, w, row, now):
        w[scalar(row, scalars.FLUSHING)] = 0
        work += 1
    if w[scalar(row, scalars.FLUSHING)] == 0 and go_on(u8, w, row, now):
        work += _alternate(u8, w, row, now)
        note_taken(w, row)
        work += deadlines(u8, w, row, now)
    owed = w[scalar(row, scalars.REPLY)]
    speak(u8, w, row)
    if w[scalar(row, scalars.REPLY)] != owed:
        work += 1
    old, full = true_row(w), w[layout.BLOCKED] >> ports.OUTDEV & 1
    if w[row + layout.ROW_TAILS + ports.OUTDEV] != w[old + layout.ROW_TAILS + ports.OUTDEV] or _held(w, row) != _held(
        w, old
    ):
        work += 1
    if w[scalar(row, scalars.WORK)] != 0 and full == 0:
        work += 1  # the undo log ended this burst, not a want of room
    if full == 0:
        w[options.FULL_SINCE] = 0
    elif w[options.FULL_SINCE] == 0:
        w[options.FULL_SINCE] = now
    elif now - w[options.FULL_SINCE] >= w[options.TIMEOUT_NS] // 2:
        w[options.RESUMED] = now
    if w[options.STUCK] != 0:
        if work == 0:
            work += _stuck(u8, w, row, now)
        count(w, row, counters.BACKPRESSURE, 1)
    work += watch_silence(u8, w, row, full, now)
    if work == 0 and w[layout.UNDO_N] == 0:
        return 0
    plan_giving_up(w, row)
    # Without work there may still be marks to commit (a connection on the work list): done, but idle.
    finish_recycling(w, row)
    return commit(w, row, now, work)


@hot
def _held(w, row):
    """Packets that are held, of both sides."""
    return w[row + layout.ROW_COUNTERS + counters.HELD]


@hot
def _alternate(u8, w, row, now):
    taken = 0
    primary = secondary = 1
    misses = 0 if w[scalar(row, scalars.ARMING)] == arming.IN_STEP else _MISSES
    catch_up = True
    for _ in range(_BURST):
        ahead = 0
        if misses < _MISSES and undo_left(w) > memory.RESERVE:
            twins = take_twins(u8, w, row, now)
            if twins > 0:
                taken += twins
                misses = 0
                continue
            if catch_up:
                ahead = twins
            misses += 1 if ahead == 0 else 0
        held = _held(w, row)
        if primary == 1 and ahead != PRIMARY_AHEAD:
            primary = take(u8, w, row, ports.PRIMARY_IN, now)
            taken += max(primary, 0)
        if secondary == 1 and ahead != SECONDARY_AHEAD:
            secondary = take(u8, w, row, ports.SECONDARY_IN, now)
            taken += max(secondary, 0)
        # One side alone is taken from only while what the other has waiting becomes less by it.
        catch_up = catch_up and (ahead == 0 or _held(w, row) < held)
        if (primary != 1 and secondary != 1) or w[scalar(row, scalars.WORK)] != 0:
            break
    return taken


@hot
def _stuck(u8, w, row, now):
    """A queue is full, so an input waits: back-pressure.  Where both wait for one another, only a checkpoint helps.

    Unless both hold the same of a datagram that is not whole: that may leave now as well as at its deadline.
    """
    if w[options.STUCK] != 3:
        return 0
    if settle_oldest_unfinished(u8, w, row) == 1:
        return 1
    if asked(w, row) or goes_on_alone(w, row):
        return 0
    write_event(u8, w, row, 0, reasons.STUCK, 0, now)
    differs(u8, w, row, reasons.STUCK, now)
    return 1
