"""netdev-pcap: emits a capture's frames when they are due and what they answer has arrived.

The cursor passes the packets in order of time.  A packet whose flow may not go on yet is left behind: the flow is
*parked*, and its packets go out, in order, as the frames arrive that it waits for.  No flow holds back another.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import copy, put_be32
from ring.hot import hot, kernel
from ring.kernels.frames import frame_at, index, prefix, scan
from ring.kernels.ledger import (
    begin,
    blocked,
    commit,
    count,
    nothing_to_read,
    put,
    readable,
    room,
    scalar,
    true_row,
    undo_left,
)
from stages.capture.kernels.pcap_blocks import has_room, record_frame
from stages.capture.layout import columns, counters, flows, memory, options, ports, recording, scalars
from stages.packets.kernels.parse import has_key, parse, reverse_key
from stages.packets.kernels.table import hash_key, same_key
from stages.packets.layout import parsed

_MOST_PUTS = 4  # what one frame may need of the undo log


@hot
def cell(w, column, i):
    """Word index of entry ``i`` of a column."""
    return w[options.BASE] + memory.HEADER + column * w[options.PACKETS] + i


@hot
def same_way(w, s):
    """Make the key at ``s`` the same for both directions of a conversation: the smaller end first."""
    port, other = w[s + parsed.PORTS] >> 16 & 0xFFFF, w[s + parsed.PORTS] & 0xFFFF
    swap = port > other
    for i in (1, 0):
        if w[s + parsed.SRC + i] != w[s + parsed.DST + i]:
            swap = w[s + parsed.SRC + i] > w[s + parsed.DST + i]
    if swap:
        reverse_key(w, s)


@hot
def find_slot(w, s):
    """Word index of the slot of the key at ``s``: it holds 1 + the conversation's number, or 0 for a new one."""
    slots = w[options.BASE] + memory.HEADER + columns.COLUMNS * w[options.PACKETS]
    mask = w[options.MASK]
    i = hash_key(w, w[options.BASE] + memory.SECRET, s) & mask
    while w[slots + i] != 0 and not same_key(w, cell(w, columns.KEYS, (w[slots + i] - 1) * parsed.KEY_WORDS), s):
        i = i + 1 & mask
    return slots + i


@kernel
def replay_index(u8, w, now):
    """Sort the packets of a capture, whose TIME, AT, LENGTH and NEED (-1: awaited) are there, into flows; once a start.

    Returns the number of flows that wait for something.
    """
    x = w[options.BASE]
    packets = w[options.PACKETS]
    known = 0
    for p in range(packets):
        s = x + memory.SCRATCH
        w[cell(w, columns.FLOW, p)] = -1
        if not has_key(parse(u8, w, w[cell(w, columns.AT, p)], w[cell(w, columns.LENGTH, p)], s)):
            continue
        same_way(w, s)
        slot = find_slot(w, s)
        if w[slot] == 0:
            for i in range(parsed.KEY_WORDS):
                w[cell(w, columns.KEYS, known * parsed.KEY_WORDS + i)] = w[s + i]
            w[cell(w, columns.NUMBER, known)] = -1
            known += 1
            w[slot] = known
        k = w[slot] - 1
        w[cell(w, columns.FLOW, p)] = k
        if w[cell(w, columns.NEED, p)] < 0:
            w[cell(w, columns.OUT, k)] += 1
        else:
            w[cell(w, columns.NEED, p)] = w[cell(w, columns.OUT, k)]
            if w[cell(w, columns.OUT, k)] > 0:
                w[cell(w, columns.NUMBER, k)] = 0
    # Only conversations that wait for something are flows; they are numbered in the order in which they begin.
    number = 0
    for k in range(known):
        if w[cell(w, columns.NUMBER, k)] == 0:
            w[cell(w, columns.NUMBER, k)] = number
            w[cell(w, columns.LAST, number)] = -1
            number += 1
    w[x + memory.FLOW_COUNT] = number
    for p in range(packets):
        k = w[cell(w, columns.FLOW, p)]
        f = w[cell(w, columns.NUMBER, k)] if k >= 0 else -1
        w[cell(w, columns.FLOW, p)] = f
        w[cell(w, columns.NEXT, p)] = packets
        if f >= 0 and w[cell(w, columns.NEED, p)] >= 0:
            before = w[cell(w, columns.LAST, f)]
            w[cell(w, columns.FIRST, f) if before < 0 else cell(w, columns.NEXT, before)] = p
            w[cell(w, columns.LAST, f)] = p
    cursor = w[scalar(true_row(w), scalars.CURSOR)]
    for f in range(number):
        if next_packet(w, f) < cursor:
            w[x + memory.PARKED] += 1
    w[x + memory.DIRTY] = 1
    return number


@hot
def state(w, f):
    """Word index of the state of flow ``f``."""
    return w[options.FLOWS] + flows.WORDS * f


@hot
def next_packet(w, f):
    """The packet that flow ``f`` emits next; options.PACKETS when there is none."""
    stored = w[state(w, f) + flows.NEXT]
    return stored - 1 if stored > 0 else w[cell(w, columns.FIRST, f)]


@hot
def emit(u8, w, row, p):
    """Put packet ``p`` into receive; 0 where the burst, its undo log, the ring or the recorder has no room for it."""
    x = w[options.BASE]
    recorder = w[options.WRITE] if w[options.BOTH] == 1 else 0
    if w[x + memory.LEFT] == 0 or undo_left(w) < _MOST_PUTS or (recorder != 0 and not has_room(w, recorder)):
        w[x + memory.DIRTY] = 1
        return 0
    r, length, at = w[layout.OUTPUTS + ports.RECEIVE], w[cell(w, columns.LENGTH, p)], w[cell(w, columns.AT, p)]
    lead = prefix(w, r)
    if room(w, row, ports.RECEIVE) < lead + length:
        blocked(w, ports.RECEIVE)
        w[x + memory.DIRTY] = 1
        return 0
    out = index(w, r, w[row + layout.ROW_TAILS + ports.RECEIVE])
    put_be32(u8, out, length)
    if lead == 8:
        put_be32(u8, out + 4, 0)
    copy(u8, out + lead, at, length)
    w[row + layout.ROW_TAILS + ports.RECEIVE] += lead + length
    w[x + memory.LEFT] -= 1
    count(w, row, layout.PORTS + ports.RECEIVE, 1)
    if recorder != 0:
        record_frame(u8, w, recorder, at, length, recording.INBOUND)
    return 1


@hot
def emit_of_flow(u8, w, row, p, f, now):
    """`emit` packet ``p`` of flow ``f`` and move the flow on."""
    if emit(u8, w, row, p) == 0:
        return 0
    put(w, state(w, f) + flows.NEXT, w[cell(w, columns.NEXT, p)] + 1)
    w[state(w, f) + flows.SINCE] = now
    return 1


@hot
def unpark(u8, w, row, f, idle_since, now):
    """Emit what parked flow ``f`` may emit; what was done.  Its patience began at ``idle_since`` at the earliest."""
    x = w[options.BASE]
    cursor = w[row + layout.ROW_SCALARS + scalars.CURSOR]
    work = 0
    p = next_packet(w, f)
    while p < cursor:
        need = w[cell(w, columns.NEED, p)]
        if w[state(w, f) + flows.RECEIVED] < need:
            since = max(w[layout.CMD_CLOCK] + w[cell(w, columns.TIME, p)], idle_since)
            if w[options.ASAP] == 0:
                since = max(since, w[state(w, f) + flows.SINCE])
            if now - since < w[options.PATIENCE] or undo_left(w) < _MOST_PUTS:
                return work
            count(w, row, counters.UNMET, 1)
            # Given up: the frames behind it wait for what comes after that.
            put(w, state(w, f) + flows.RECEIVED, need)
            work += 1
        if emit_of_flow(u8, w, row, p, f, now) == 0:
            return work
        work += 1
        p = next_packet(w, f)
    w[x + memory.PARKED] -= 1
    return work


@hot
def take_sent(u8, w, row, now, emitting):
    """Take what arrived on send: count it for its flow, record or swallow it; the number of frames."""
    x, r, recorder = w[options.BASE], w[layout.INPUTS + ports.SEND], w[options.WRITE]
    position, end = w[row + layout.ROW_HEADS + ports.SEND], readable(w, row, ports.SEND)
    if r == 0 or position == end:
        return 0
    end = scan(u8, w, r, position, end, memory.BURST)[0]
    frames = awaited = 0
    while position < end and undo_left(w) >= _MOST_PUTS:
        at = index(w, r, position)
        frame, length = frame_at(u8, w, r, at)
        if recorder != 0:
            if not has_room(w, recorder):
                break
            record_frame(u8, w, recorder, frame, length, recording.OUTBOUND)
        if w[x + memory.FLOW_COUNT] > 0 and has_key(parse(u8, w, frame, length, x + memory.SCRATCH)):
            same_way(w, x + memory.SCRATCH)
            slot = find_slot(w, x + memory.SCRATCH)
            f = w[cell(w, columns.NUMBER, w[slot] - 1)] if w[slot] != 0 else -1
            if f >= 0:
                awaited += 1
                put(w, state(w, f) + flows.RECEIVED, w[state(w, f) + flows.RECEIVED] + 1)
                w[state(w, f) + flows.SINCE] = now
                if emitting and next_packet(w, f) < w[row + layout.ROW_SCALARS + scalars.CURSOR]:
                    unpark(u8, w, row, f, now, now)
        position += frame + length - at
        frames += 1
    w[row + layout.ROW_HEADS + ports.SEND] = position
    count(w, row, ports.SEND, frames)
    count(w, row, counters.WRITTEN if recorder != 0 else counters.SWALLOWED, frames)
    count(w, row, counters.AWAITED, awaited)
    count(w, row, counters.STRAY, frames - awaited)
    return frames


@hot
def scan_parked(u8, w, row, now):
    """Look at every parked flow: room may have come, or its patience be over; what was done."""
    x = w[options.BASE]
    w[x + memory.DIRTY] = 0
    w[x + memory.NEXT_SCAN] = now + memory.SCAN_NS
    idle_since = w[row + layout.ROW_SCALARS + scalars.PROGRESS] if w[options.ASAP] == 1 else 0
    cursor = w[row + layout.ROW_SCALARS + scalars.CURSOR]
    work = 0
    for f in range(w[x + memory.FLOW_COUNT]):
        if next_packet(w, f) < cursor:
            work += unpark(u8, w, row, f, idle_since, now)
    return work


@hot
def advance(u8, w, row, now):
    """Move the cursor over the packets that are due; the number passed."""
    x = w[options.BASE]
    start = w[row + layout.ROW_SCALARS + scalars.CURSOR]
    p = start
    stop = min(start + memory.STEPS, w[options.PACKETS])
    while p < stop and w[layout.CMD_CLOCK] + w[cell(w, columns.TIME, p)] <= now:
        f = w[cell(w, columns.FLOW, p)]
        if w[cell(w, columns.NEED, p)] >= 0:
            if f < 0:
                if emit(u8, w, row, p) == 0:
                    break
            elif next_packet(w, f) == p:
                if w[state(w, f) + flows.RECEIVED] < w[cell(w, columns.NEED, p)]:
                    w[x + memory.PARKED] += 1
                elif emit_of_flow(u8, w, row, p, f, now) == 0:
                    break
        p += 1
    w[row + layout.ROW_SCALARS + scalars.CURSOR] = p
    return p - start


@hot
def something_due(w, now):
    """Whether a cycle may have anything to emit: asked before `begin`, so that an idle one copies no row."""
    x = w[options.BASE]
    cursor = w[scalar(true_row(w), scalars.CURSOR)]
    if cursor < w[options.PACKETS] and w[layout.CMD_CLOCK] + w[cell(w, columns.TIME, cursor)] <= now:
        return True
    return w[x + memory.PARKED] > 0 and (w[x + memory.DIRTY] == 1 or now >= w[x + memory.NEXT_SCAN])


@kernel
def replay_open(u8, w, now):
    """A burst up to its commit, so that the recorder's buffer can be written before; the work, 0: nothing to commit."""
    w[layout.BLOCKED] = 0
    x = w[options.BASE]
    emitting = w[layout.CMD_CLOCK] != 0 and w[layout.CMD_DRAIN] == 0 and w[layout.OUTPUTS + ports.RECEIVE] != 0
    if nothing_to_read(w) and not (emitting and something_due(w, now)):
        return 0
    row = begin(w)
    w[x + memory.LEFT] = memory.BURST
    work = take_sent(u8, w, row, now, emitting)
    if emitting:
        if w[x + memory.PARKED] > 0 and (w[x + memory.DIRTY] == 1 or now >= w[x + memory.NEXT_SCAN]):
            work += scan_parked(u8, w, row, now)
        work += advance(u8, w, row, now)
    w[row + layout.ROW_SCALARS + scalars.PROGRESS] = now
    w[x + memory.ROW] = row
    w[x + memory.WORK] = work
    return work


@kernel
def replay_commit(u8, w, now):
    """Commit the burst that `replay_open` left open."""
    x = w[options.BASE]
    return commit(w, w[x + memory.ROW], now, w[x + memory.WORK])


@kernel
def replay_burst(u8, w, now):
    """One burst, where nothing is recorded."""
    if replay_open(u8, w, now) == 0:
        return 0
    return replay_commit(u8, w, now)
