"""Records of what was found, for the shell to log: a ring of EVENTS in the segment."""

from __future__ import annotations

from ring.atomics import byte, put_byte
from ring.hot import hot
from ring.kernels.ledger import scalar
from stages.compare.kernels.rules import masks, rule_number
from stages.compare.layout import conns, events, options, scalars
from stages.packets.layout import parsed, rows


@hot
def write_event(u8, w, row, c, reason, position, now):
    """Start a record for the shell to log; its word index.  ``c`` is a connection's row, or 0."""
    n = w[scalar(row, scalars.EVENTS)]
    # Written plainly: the record becomes visible when scalars.EVENTS commits; a reader that is so far behind says so.
    e = w[options.EVENTS] + (n % events.COUNT) * events.WORDS
    for i in range(events.WORDS):
        w[e + i] = 0
    w[e + events.REASON] = reason
    w[e + events.POSITION] = position
    w[e + events.TIME] = now
    if c != 0:
        w[e + events.CONN] = c
        w[e + events.TRANSPORT] = w[c + conns.TRANSPORT]
        w[e + events.RULE] = rule_number(w, c) if masks(w, c) else 0
        for i in range(parsed.KEY_WORDS):
            w[e + events.KEY + i] = w[c + rows.KEY + i]
    w[scalar(row, scalars.EVENTS)] = n + 1
    return e


@hot
def event_bytes(u8, w, e, p, p_len, s, s_len, at):
    """Show both sides around offset ``at`` in an event; ``p`` and ``s`` are byte indices of the two payloads."""
    start = max(at - 8, 0)
    w[e + events.PRIMARY_LEN] = max(p_len - start, 0)
    w[e + events.SECONDARY_LEN] = max(s_len - start, 0)
    w[e + events.OFFSET] = at - start
    for i in range(events.SHOWN):
        if start + i < p_len:
            put_byte(u8, (e + events.PRIMARY_BYTES) * 8 + i, byte(u8, p + start + i))
        if start + i < s_len:
            put_byte(u8, (e + events.SECONDARY_BYTES) * 8 + i, byte(u8, s + start + i))
