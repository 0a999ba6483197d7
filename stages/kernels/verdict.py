"""What follows from a difference: an event for the log, a count, a request for a checkpoint."""

from __future__ import annotations

from ring.atomics import byte, put_byte
from ring.hot import hot
from ring.kernels.ledger import count, put, scalar
from ring.layout import P_OUTPUTS
from stages.layout.compare import (
    C_FLAGS,
    C_VERDICT,
    C_WORK_NEXT,
    CF_DIVERGED,
    CF_PASS,
    CF_WORK,
    CHECKPOINTS_ASKED,
    DIVERGED_PAYLOAD,
    DIVERGENCES,
    E_CONN,
    E_KEY,
    E_OFFSET,
    E_P_BYTES,
    E_P_LEN,
    E_POSITION,
    E_REASON,
    E_S_BYTES,
    E_S_LEN,
    E_TIME,
    E_VERDICT,
    EVENT_BYTES,
    EVENT_WORDS,
    EVENTS,
    NOTIFY_OUT,
    O_EVENTS,
    O_LOCAL,
    R_PAYLOAD,
    SC_ASKED,
    SC_EVENTS,
    SC_REPLY,
    SC_WORK,
)
from stages.layout.packet import KEY_WORDS, TCP
from stages.layout.table import R_KEY, R_PINNED


@hot
def write_event(u8, w, row, c, reason, position, now):
    """Start a record for the shell to log; its word index.  ``c`` is a connection's row, or 0."""
    n = w[scalar(row, SC_EVENTS)]
    # Written plainly: the record becomes visible when SC_EVENTS commits; a reader that is EVENTS behind says so.
    e = w[O_EVENTS] + (n % EVENTS) * EVENT_WORDS
    for i in range(EVENT_WORDS):
        w[e + i] = 0
    w[e + E_REASON] = reason
    w[e + E_POSITION] = position
    w[e + E_TIME] = now
    if c != 0:
        w[e + E_CONN] = c
        w[e + E_VERDICT] = w[c + C_VERDICT]
        for i in range(KEY_WORDS):
            w[e + E_KEY + i] = w[c + R_KEY + i]
    w[scalar(row, SC_EVENTS)] = n + 1
    return e


@hot
def event_bytes(u8, w, e, p, p_len, s, s_len, at):
    """Show both sides around offset ``at`` in an event; ``p`` and ``s`` are byte indices of the two payloads."""
    start = max(at - 8, 0)
    w[e + E_P_LEN] = max(p_len - start, 0)
    w[e + E_S_LEN] = max(s_len - start, 0)
    w[e + E_OFFSET] = at - start
    for i in range(EVENT_BYTES):
        if start + i < p_len:
            put_byte(u8, (e + E_P_BYTES) * 8 + i, byte(u8, p + start + i))
        if start + i < s_len:
            put_byte(u8, (e + E_S_BYTES) * 8 + i, byte(u8, s + start + i))


@hot
def ask(w, row, now):
    """Ask for a checkpoint, unless a request is in flight: one divergence or a thousand, one request."""
    if w[O_LOCAL] != 0:
        count(w, row, CHECKPOINTS_ASKED, 1)
        return
    if w[scalar(row, SC_ASKED)] != 0:
        return
    w[scalar(row, SC_ASKED)] = now
    count(w, row, CHECKPOINTS_ASKED, 1)
    if w[P_OUTPUTS + NOTIFY_OUT] != 0:
        w[scalar(row, SC_REPLY)] |= 1


@hot
def queue_work(w, row, c):
    """Put a connection on the work list: it can go on, but for want of room or of undo log it did not."""
    if w[c + C_FLAGS] & CF_WORK == 0:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_WORK)
        put(w, c + R_PINNED, w[c + R_PINNED] + 1)  # a row on the list is not evicted, even with nothing held
        put(w, c + C_WORK_NEXT, w[scalar(row, SC_WORK)])
        w[scalar(row, SC_WORK)] = c


@hot
def diverge(w, row, c, reason, now):
    """Count a difference, ask for a checkpoint, and stop comparing the connection until one comes.

    Where nobody makes checkpoints (checkpoint = "local") a stream passes uncompared from here on.
    """
    count(w, row, DIVERGENCES, 1)
    count(w, row, DIVERGED_PAYLOAD + reason - R_PAYLOAD, 1)
    ask(w, row, now)
    if w[O_LOCAL] == 0:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_DIVERGED)
    elif w[c + C_VERDICT] == TCP:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_PASS)
        queue_work(w, row, c)
