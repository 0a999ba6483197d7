"""What a checkpoint, the loss of the secondary, and time settle."""

from __future__ import annotations

from ring import layout
from ring.atomics import be32
from ring.hot import hot
from ring.kernels.frames import index, prefix
from ring.kernels.ledger import blocked, count, put, room, scalar, undo_left
from stages.compare.kernels.checkpoint_requests import repeat_request
from stages.compare.kernels.connections import connection, reclassify
from stages.compare.kernels.datagrams import give_up, grace_over, leave, watch
from stages.compare.kernels.events import write_event
from stages.compare.kernels.evidence import keep_packets
from stages.compare.kernels.fragments import remember_group
from stages.compare.kernels.rules import stale
from stages.compare.kernels.slots import fits_slot, slot, unlink
from stages.compare.kernels.tcp_compare import service, stream_offset
from stages.compare.kernels.tcp_segments import note_primary, release_record
from stages.compare.kernels.timestamps import emit_in_time
from stages.compare.kernels.verdict import differs, diverge
from stages.compare.layout.words import (
    C_COMPARED,
    C_CURSOR,
    C_EPOCH,
    C_FLAGS,
    C_HEAD,
    C_LIFE,
    C_S_LIFE,
    C_VERDICT,
    CF_P_SYN,
    CF_PASS,
    CF_RULE,
    CF_SYNCED,
    DROPPED_AT_CHECKPOINT,
    DROPPED_DIVERGED,
    DROPPED_UNARMED,
    E_OFFSET,
    E_P_LEN,
    E_POSITION,
    E_S_LEN,
    FLUSH_CHECKPOINT,
    O_LOCAL,
    O_RESUMED,
    O_SCRATCH,
    O_STATE,
    O_TIMEOUT_NS,
    OUTDEV,
    R_TIMEOUT,
    RELEASED_AT_CHECKPOINT,
    RELEASED_UNARMED,
    RELEASED_UNCOMPARED,
    RESERVE,
    S_CONN,
    S_END,
    S_FLAGS,
    S_FRAME,
    S_SEQ,
    S_TIME,
    SC_ASKED,
    SC_FLUSHING,
    SC_GENERATION,
    SC_GRACE_FIRST,
    SC_OLDEST,
    SC_WANTED,
    SECONDARY,
    ST_ASKED_AT,
    ST_TOLD,
)
from stages.packets.kernels.parse import finds_neighbours, parse
from stages.packets.kernels.serial import diff
from stages.packets.layout.packet import ICMP, OTHER, RST, TCP


@hot
def flush(u8, w, row, now):
    """Settle what is held: the primary's leaves, the secondary's is void.  True when nothing is held any more.

    After a checkpoint the replicas are equal; where the secondary is lost nothing will come that could be compared.
    """
    checkpoint_made = w[scalar(row, SC_FLUSHING)] == FLUSH_CHECKPOINT
    while undo_left(w) > RESERVE:
        n = w[scalar(row, SC_OLDEST)] - 1
        if n >= 0:
            if not fits_slot(w, row, n):
                blocked(w, OUTDEV)
                return False
            leave(w, row, w[slot(w, n) + S_CONN])
            emit_in_time(u8, w, row, w[slot(w, n) + S_CONN], n)
            remember_group(w, n, now)
            frames = unlink(w, row, n)
            count(w, row, RELEASED_AT_CHECKPOINT if checkpoint_made else RELEASED_UNARMED, frames)
            continue
        n = w[scalar(row, SC_OLDEST + 1)] - 1
        if n < 0:
            return not checkpoint_made or (_settle_ring(u8, w, row, 0, now) and _settle_ring(u8, w, row, 1, now))
        leave(w, row, w[slot(w, n) + S_CONN])
        remember_group(w, n, now)
        frames = unlink(w, row, n)
        count(w, row, DROPPED_AT_CHECKPOINT if checkpoint_made else DROPPED_UNARMED, frames)
    return False


@hot
def _settle_ring(u8, w, row, side, now):
    """Settle what was in an input when the checkpoint was asked for: it was said before, too.  True when that is done.

    What came later may have been said by either replica after the checkpoint.
    """
    r = w[layout.INPUTS + side]
    while r != 0 and w[row + layout.ROW_HEADS + side] < w[w[O_STATE] + ST_ASKED_AT + side]:
        if undo_left(w) < RESERVE:
            return False
        position = w[row + layout.ROW_HEADS + side]
        at = index(w, r, position)
        lead, nbytes = prefix(w, r), be32(u8, at)
        if side == 0:
            if room(w, row, OUTDEV) < prefix(w, w[layout.OUTPUTS + OUTDEV]) + nbytes:
                blocked(w, OUTDEV)
                return False
            vnet = be32(u8, at + 4) if lead == 8 else 0
            s, frame = w[O_SCRATCH], at + lead + vnet
            verdict = parse(u8, w, frame, nbytes - vnet, s)
            never = verdict == OTHER or (verdict == ICMP and finds_neighbours(u8, w, s, frame))
            if verdict == TCP:
                c = connection(w, row, 0, s, verdict, now)
                if c != 0 and note_primary(w, row, c, s):
                    put(w, c + C_EPOCH, -1)  # and its counterpart has sent as much
            release_record(u8, w, row, r, position)
            count(w, row, RELEASED_UNCOMPARED if never else RELEASED_AT_CHECKPOINT, 1)
        else:
            count(w, row, DROPPED_AT_CHECKPOINT, 1)
        w[row + layout.ROW_HEADS + side] = position + lead + nbytes
        count(w, row, side, 1)
    return True


@hot
def overdue(w, n, now):
    """Whether the held packet ``n`` has waited too long, not counting what a full outdev kept us from reading."""
    return now - max(w[slot(w, n) + S_TIME], w[O_RESUMED]) >= w[O_TIMEOUT_NS]


@hot
def _told(w, row):
    """Whether a timeout needs no telling: a request is in flight, or one that waits for its time was told of one."""
    if w[scalar(row, SC_ASKED)] != 0:
        return True
    return w[scalar(row, SC_WANTED)] != 0 and w[w[O_STATE] + ST_TOLD] == w[scalar(row, SC_GENERATION)] + 1


@hot
def _lacks_acknowledgement(w, c, x):
    """Whether the bytes of the primary's segment ``x`` were equal: the secondary has not acknowledged as much."""
    if w[c + C_FLAGS] & CF_P_SYN or w[x + S_FLAGS] & RST:
        return False  # what it waits for is a SYN, or a reset
    return diff(w[x + S_END], w[c + C_COMPARED]) <= 0


@hot
def _who_waits(w, c, e, x, side):
    """Say in event ``e`` whose packets wait, and for what: of TCP, what is missing is not always the other's packet."""
    waits = side
    if w[c + C_VERDICT] == TCP and w[c + C_FLAGS] & CF_SYNCED:
        compared = w[c + C_COMPARED]
        w[e + E_POSITION] = stream_offset(w, c, compared)
        p, s = w[c + C_CURSOR] - 1, w[c + C_HEAD + SECONDARY] - 1
        mine = p >= 0 and diff(w[slot(w, p) + S_SEQ], compared) <= 0
        theirs = s >= 0 and diff(w[slot(w, s) + S_SEQ], compared) <= 0
        if mine and not theirs:
            waits = 0
        elif theirs and not mine:
            waits = 1
        elif not mine and side == 0 and _lacks_acknowledgement(w, c, x):
            w[e + E_OFFSET] = 1
    w[e + (E_S_LEN if waits else E_P_LEN)] = w[x + S_FRAME]


@hot
def deadlines(u8, w, row, now):
    """Differences that time reveals; how many."""
    found = 0
    while undo_left(w) > RESERVE:
        c = w[scalar(row, SC_GRACE_FIRST)]
        if c != 0 and stale(w, row, c):
            reclassify(w, row, c)
            found += 1
            continue
        done = grace_over(u8, w, row, now)
        if done <= 0:
            break
        found += 1
    for side in range(2):
        while undo_left(w) > RESERVE:
            n = w[scalar(row, SC_OLDEST + side)] - 1
            if n < 0 or not overdue(w, n, now):
                break
            x = slot(w, n)
            c = w[x + S_CONN]
            if stale(w, row, c):
                reclassify(w, row, c)
            if w[c + C_FLAGS] & CF_RULE:  # a new rule lets it pass
                if not service(u8, w, row, c, now) or w[scalar(row, SC_OLDEST + side)] == n + 1:
                    break
                found += 1
                continue
            if w[O_LOCAL] == 0 and _told(w, row):
                break  # the next checkpoint will settle it
            if w[O_LOCAL] != 0 and w[c + C_VERDICT] != TCP and side == 0 and not fits_slot(w, row, n):
                blocked(w, OUTDEV)
                break
            found += 1
            if w[O_LOCAL] == 0 or w[c + C_VERDICT] != TCP or w[c + C_FLAGS] & CF_PASS == 0:  # else it was told of
                e = write_event(u8, w, row, c, R_TIMEOUT, -1, now)
                _who_waits(w, c, e, x, side)
                keep_packets(u8, w, row, c, e, n if side == 0 else -1, -1, n if side == 1 else -1, -1)
                if w[O_LOCAL] == 0:
                    put(w, w[O_STATE] + ST_TOLD, w[scalar(row, SC_GENERATION)] + 1)
                    differs(u8, w, row, R_TIMEOUT, now)
                    break
                diverge(u8, w, row, c, R_TIMEOUT, now)
            if w[c + C_VERDICT] == TCP:
                service(u8, w, row, c, now)
                if w[scalar(row, SC_OLDEST + side)] != n + 1:
                    continue
                if side == 0:
                    break  # no room: it stays on the work list
                # Of a life that the primary has not begun: such packets do not pass.
            remember_group(w, n, now)
            if side == 0:
                give_up(u8, w, row, n)
            else:
                count(w, row, DROPPED_DIVERGED, unlink(w, row, n))
                if w[c + C_S_LIFE] > w[c + C_LIFE] and w[c + C_HEAD + SECONDARY] == 0:
                    put(w, c + C_S_LIFE, w[c + C_LIFE])  # a life that is given up: the next SYN of both is a new one
            if w[c + C_VERDICT] != TCP:
                leave(w, row, c)
                watch(w, row, c, now)
    return found + repeat_request(u8, w, row, now)
