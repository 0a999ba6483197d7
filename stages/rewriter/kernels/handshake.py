"""filter-rewriter: what the segments of a handshake teach.

The peer opens: the guest's SYN+ACK tells the secondary's ISN, the peer's first ACK the primary's.  The guest opens: its
own SYN tells the secondary's ISN, the peer's SYN+ACK the primary's, and is the first segment to be rewritten.  The
compare lets no SYN of the primary out before the secondary has sent its own, which has passed here, so on a connection
that is compared the answer is never too early.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be32
from ring.hot import hot
from ring.kernels.ledger import count, put
from stages.packets.kernels.serial import add, diff
from stages.packets.kernels.table import touch
from stages.packets.kernels.tcp_options import timestamps
from stages.packets.layout import parsed, rows, tcp
from stages.rewriter.kernels.connections import change, current, keep, leave_alone, new_alone, new_connection, renew
from stages.rewriter.layout import conns, counters, scalars, tables


@hot
def header(w, at):
    """Byte index and size of the TCP header of the frame at ``at``, which is in the scratch words."""
    return at + w[tables.SCRATCH_AT + parsed.L4], w[tables.SCRATCH_AT + parsed.DATA] - w[tables.SCRATCH_AT + parsed.L4]


@hot
def tell_isn(u8, w, row, c, at, state):
    """The guest's SYN or SYN+ACK in the scratch words tells the secondary's ISN and clock."""
    change(w, c + conns.STATE, state)
    change(w, c + conns.LOCAL_ISN, w[tables.SCRATCH_AT + parsed.SEQ])
    tcp_at, size = header(w, at)
    ts = timestamps(u8, tcp_at, size)
    change(w, c + conns.TS_LOCAL, be32(u8, tcp_at + ts) if ts >= 0 else -1)
    change(w, c + conns.GENERATION, w[row + layout.ROW_SCALARS + scalars.GENERATION])


@hot
def answered(u8, w, row, c, at):
    """A SYN+ACK of the guest."""
    seq, first = w[tables.SCRATCH_AT + parsed.SEQ], w[tables.SCRATCH_AT + parsed.ACK]
    state = w[c + conns.STATE]
    if state == conns.ESTABLISHED:
        if w[c + conns.FIRST_SEQ] == first and (w[c + rows.CLOSED] == 0 or w[c + conns.LOCAL_ISN] == seq):
            return  # sent again, and the connection is older than it
        if not renew(w, row, c):
            return
    elif w[c + rows.CLOSED] == 1 or (state == conns.ANSWERED and w[c + conns.FIRST_SEQ] != first):
        if not renew(w, row, c):
            return
    if w[c + conns.LOCAL_ISN] != seq:
        change(w, c + conns.GUEST_OPENED, 0)  # not the SYN+ACK of a simultaneous open, which has the ISN of the SYN
    change(w, c + conns.FIRST_SEQ, first)
    change(w, c + conns.ACK_OUT, first)
    tell_isn(u8, w, row, c, at, conns.ANSWERED)


@hot
def asked(u8, w, row, c, at):
    """A SYN of the guest: it opens the connection."""
    if w[c + conns.STATE] == conns.LEFT_ALONE and w[c + conns.LOCAL_ISN] == w[tables.SCRATCH_AT + parsed.SEQ]:
        return  # sent again, perhaps without its data, which the answer may acknowledge all the same
    if w[tables.SCRATCH_AT + parsed.DATA_LEN] > 0:
        # The answer may acknowledge the data or not (RFC 7413), so it does not tell the primary's ISN.
        leave_alone(w, row, c)
        change(w, c + conns.LOCAL_ISN, w[tables.SCRATCH_AT + parsed.SEQ])
        count(w, row, counters.CONNECTIONS_UNTRACKED, 1)
        return
    if w[c + rows.CLOSED] == 1:
        if not renew(w, row, c):
            return
    elif w[c + conns.STATE] == conns.ESTABLISHED:
        # Compared as the peer sees them: after a checkpoint the guest sends the primary's SYN again.
        wire = add(w[tables.SCRATCH_AT + parsed.SEQ], -current(w, row, c, conns.SEQ_OFFSET))
        if wire == add(w[c + conns.LOCAL_ISN], -w[c + conns.SEQ_OFFSET]) or not renew(w, row, c):
            return
    change(w, c + conns.GUEST_OPENED, 1)
    change(w, c + conns.FIRST_SEQ, -1)
    tell_isn(u8, w, row, c, at, conns.OPENING)


@hot
def learn(u8, w, c, at):
    """The inbound ACK in the scratch words acknowledges the primary's SYN: it tells its ISN and clock."""
    put(w, c + conns.STATE, conns.ESTABLISHED)
    change(w, c + conns.SEQ_OFFSET, add(w[c + conns.LOCAL_ISN], 1 - w[tables.SCRATCH_AT + parsed.ACK]))
    tcp_at, size = header(w, at)
    ts = timestamps(u8, tcp_at, size)
    known = ts >= 0 and w[c + conns.TS_LOCAL] >= 0
    change(w, c + conns.TS_OFFSET, add(w[c + conns.TS_LOCAL], -be32(u8, tcp_at + ts + 4)) if known else 0)
    if w[c + rows.CLOSED] == 0:
        keep(w, c)


@hot
def establish(u8, w, c, at):
    """An inbound ACK without SYN on a connection that is not established."""
    state = w[c + conns.STATE]
    if state == conns.ANSWERED:
        first = diff(w[tables.SCRATCH_AT + parsed.SEQ], w[c + conns.FIRST_SEQ])
        if 0 <= first <= conns.FIRST_WINDOW:  # it can belong to this connection
            learn(u8, w, c, at)
    elif state == conns.OPENING and w[tables.SCRATCH_AT + parsed.FLAGS] & tcp.RST:
        learn(u8, w, c, at)  # the peer refuses; without RST it acknowledges something older (RFC 9293, 3.5.1)


@hot
def accepted(u8, w, row, c, now, at):
    """A SYN+ACK of the peer; the counter that it falls under, -1: it is to be rewritten.

    The secondary that has sent no SYN is a copy of the primary (a checkpoint came between the primary's SYN and this),
    for which it is right as it is, or it lags on a connection that is not compared, which nothing here can mend.
    """
    if c < 0:
        return counters.PASSED_UNKNOWN if w[row + layout.ROW_SCALARS + scalars.ALONE] == 1 else counters.PASSED_UNASKED
    state = w[c + conns.STATE]
    if state == conns.LEFT_ALONE:
        return counters.PASSED_UNKNOWN
    touch(w, c, now)
    if w[c + conns.GUEST_OPENED] == 0:
        return counters.PASSED_UNASKED
    first = add(w[tables.SCRATCH_AT + parsed.SEQ], 1)
    if state == conns.OPENING:
        change(w, c + conns.FIRST_SEQ, first)
        change(w, c + conns.ACK_OUT, first)  # the guest is about to send it
    if state == conns.OPENING or (state == conns.ANSWERED and w[c + conns.FIRST_SEQ] == first):
        learn(u8, w, c, at)
    return -1 if w[c + conns.STATE] == conns.ESTABLISHED else counters.PASSED_HANDSHAKE


@hot
def handshake(u8, w, row, c, now, at, inbound):
    """A SYN or SYN+ACK; the counter that it falls under, and it goes out as it is, or -1: it is to be rewritten.

    An inbound SYN on a known connection changes nothing: it may be sent again, late or forged.  Whether the guest
    takes it for a new connection shows in the guest's SYN+ACK.
    """
    flags = w[tables.SCRATCH_AT + parsed.FLAGS]
    if flags & (tcp.FIN | tcp.RST):
        return counters.PASSED_HANDSHAKE if c >= 0 else counters.PASSED_UNKNOWN
    if inbound and flags & tcp.ACK:
        return accepted(u8, w, row, c, now, at)
    if c < 0:
        if w[row + layout.ROW_SCALARS + scalars.ALONE] == 1:
            return counters.PASSED_UNKNOWN
        with_data = not inbound and flags & tcp.ACK == 0 and w[tables.SCRATCH_AT + parsed.DATA_LEN] > 0
        c = new_alone(w, row, now) if with_data else new_connection(w, row, now)
        if c < 0:
            count(w, row, counters.CONNECTIONS_UNTRACKED, 1)
            return counters.PASSED_UNKNOWN
    touch(w, c, now)
    if not inbound:
        if flags & tcp.ACK:
            answered(u8, w, row, c, at)
        else:
            asked(u8, w, row, c, at)
    return counters.PASSED_UNKNOWN if w[c + conns.STATE] == conns.LEFT_ALONE else counters.PASSED_HANDSHAKE
