"""Records of what was found, for the shell to log: a ring of EVENTS in the segment."""

from __future__ import annotations

from ring.atomics import byte, put_byte
from ring.hot import hot
from ring.kernels.ledger import scalar
from stages.compare.kernels.rules import masks, rule_number
from stages.compare.layout.words import (
    C_VERDICT,
    E_CONN,
    E_KEY,
    E_OFFSET,
    E_P_BYTES,
    E_P_LEN,
    E_POSITION,
    E_REASON,
    E_RULE,
    E_S_BYTES,
    E_S_LEN,
    E_TIME,
    E_VERDICT,
    EVENT_BYTES,
    EVENT_WORDS,
    EVENTS,
    O_EVENTS,
    SC_EVENTS,
)
from stages.packets.layout.packet import KEY_WORDS
from stages.packets.layout.table import R_KEY


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
        w[e + E_RULE] = rule_number(w, c) if masks(w, c) else 0
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
