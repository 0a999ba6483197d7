"""Keeping what explains a difference: the beginning of every packet for a while, and at a difference a connection's."""

from __future__ import annotations

from ring import layout
from ring.atomics import copy
from ring.hot import hot
from ring.kernels.ledger import count, scalar
from stages.compare.kernels.slots import slot
from stages.compare.layout.evidence import (
    H_BYTES,
    H_CONN,
    H_HASH,
    H_LENGTH,
    H_TIME,
    HELD,
    HELD_SHOWN,
    HISTORY,
    HISTORY_BYTES,
    HISTORY_WORDS,
    K_AT,
    K_KEPT,
    K_KIND,
    K_LENGTH,
    K_SIDE,
    K_TIME,
    KEPT_BYTES,
    PACKET_HEADER,
    PASSED,
    PASSED_SHOWN,
    R_EVENT,
    R_LEFT_OUT,
    R_PACKETS,
    R_USED,
    RECORD_HEADER,
    RECORD_WORDS,
    RECORDS,
)
from stages.compare.layout.words import (
    ACKS,
    C_HEAD,
    E_RECORD,
    O_HISTORY,
    O_RECORDS,
    O_RECORDS_TAKEN,
    PACKETS,
    RECORDS_SKIPPED,
    S_BYTES,
    S_DATA,
    S_FRAME,
    S_NEXT,
    S_TIME,
    S_V,
    SC_EVENTS,
    SC_RECORDS,
    SECONDARY,
)
from stages.compare.layout.words import RECORDS as RECORDS_COUNTER
from stages.packets.layout.table import R_HASH

R_TAKEN = layout.ROW_COUNTERS  # frames taken from an input are counted at its number


@hot
def note_packet(u8, w, row, side, c, at, length, now):
    """Keep the beginning of the frame of ``length`` bytes at ``at``, the next that will be counted at ``side``."""
    if w[O_HISTORY] == 0:
        return
    h = w[O_HISTORY] + (side * HISTORY + (w[row + R_TAKEN + side] & HISTORY - 1)) * HISTORY_WORDS
    w[h + H_TIME] = now
    w[h + H_CONN] = c
    w[h + H_HASH] = w[c + R_HASH]
    w[h + H_LENGTH] = length
    copy(u8, (h + H_BYTES) * 8, at, min(length, HISTORY_BYTES))


@hot
def keep_packets(u8, w, row, c, e, p, p_at, s, s_at):
    """Copy the packets of connection ``c`` into a free record and name it in event ``e``.

    ``p`` and ``s`` are the slots that differ (-1: none on that side), the difference being ``p_at`` and ``s_at`` bytes
    into what is compared of them.
    """
    if w[O_HISTORY] == 0:
        return
    n = w[scalar(row, SC_RECORDS)]
    if n - w[O_RECORDS_TAKEN] >= RECORDS:
        count(w, row, RECORDS_SKIPPED, 1)
        return
    r = w[O_RECORDS] + n % RECORDS * RECORD_WORDS
    w[r + R_EVENT] = w[scalar(row, SC_EVENTS)] - 1
    w[r + R_PACKETS] = 0
    w[r + R_USED] = RECORD_HEADER
    w[r + R_LEFT_OUT] = 0
    if p >= 0:
        _keep_slot(u8, w, r, p, 0, p_at)
    if s >= 0:
        _keep_slot(u8, w, r, s, 1, s_at)
    _keep_list(u8, w, r, c, PACKETS, p)
    _keep_list(u8, w, r, c, SECONDARY, s)
    _keep_list(u8, w, r, c, ACKS, p)
    for side in range(2):
        _keep_passed(u8, w, row, r, c, side)
    w[e + E_RECORD] = n + 1
    w[scalar(row, SC_RECORDS)] = n + 1
    count(w, row, RECORDS_COUNTER, 1)


@hot
def _keep_slot(u8, w, r, n, side, at):
    x = slot(w, n)
    start = w[x + S_V]
    where = w[x + S_DATA] - start + at if at >= 0 else -1
    _keep(u8, w, r, w[x + S_TIME], side, HELD, w[x + S_BYTES] + start, w[x + S_FRAME] - start, KEPT_BYTES, where)


@hot
def _keep_list(u8, w, r, c, which, but):
    n = w[c + C_HEAD + which] - 1
    shown = 0
    while n >= 0:
        if n != but:
            if shown < HELD_SHOWN:
                _keep_slot(u8, w, r, n, 1 if which == SECONDARY else 0, -1)
            else:
                w[r + R_LEFT_OUT] += 1
            shown += 1
        n = w[slot(w, n) + S_NEXT] - 1


@hot
def _keep_passed(u8, w, row, r, c, side):
    """The last packets of the connection that were taken from ``side``, newest first; held ones are among them."""
    taken = w[row + R_TAKEN + side]
    shown = 0
    for back in range(min(taken + 1, HISTORY)):  # the one that is being taken is noted, but not yet counted
        h = w[O_HISTORY] + (side * HISTORY + (taken - back & HISTORY - 1)) * HISTORY_WORDS
        if w[h + H_CONN] == c and w[h + H_HASH] == w[c + R_HASH]:
            length = w[h + H_LENGTH]
            _keep(u8, w, r, w[h + H_TIME], side, PASSED, (h + H_BYTES) * 8, length, HISTORY_BYTES, -1)
            shown += 1
            if shown == PASSED_SHOWN:
                break


@hot
def _keep(u8, w, r, time, side, kind, at, length, most, where):
    kept = min(length, most)
    used = w[r + R_USED]
    size = PACKET_HEADER + (kept + 7) // 8
    if used + size > RECORD_WORDS:
        w[r + R_LEFT_OUT] += 1
        return
    k = r + used
    w[k + K_TIME] = time
    w[k + K_SIDE] = side
    w[k + K_KIND] = kind
    w[k + K_LENGTH] = length
    w[k + K_KEPT] = kept
    w[k + K_AT] = where
    copy(u8, (k + PACKET_HEADER) * 8, at, kept)
    w[r + R_USED] = used + size
    w[r + R_PACKETS] += 1
