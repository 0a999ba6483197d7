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
from stages.packets.layout.packet import ACK, F_ACK, F_DATA, F_DATA_LEN, F_FLAGS, F_L4, F_SEQ, FIN, RST
from stages.packets.layout.table import R_CLOSED
from stages.rewriter.kernels.connections import change, current, keep, leave_alone, new_alone, new_connection, renew
from stages.rewriter.layout import (
    ANSWERED,
    C_ACK_OUT,
    C_FIRST_SEQ,
    C_GENERATION,
    C_GUEST_OPENED,
    C_LOCAL_ISN,
    C_OFFSET,
    C_STATE,
    C_TS_LOCAL,
    C_TS_OFFSET,
    ESTABLISHED,
    FIRST_WINDOW,
    LEFT_ALONE,
    OPENING,
    PASSED_HANDSHAKE,
    PASSED_UNASKED,
    PASSED_UNKNOWN,
    S_ALONE,
    S_GENERATION,
    SCRATCH_AT,
    UNTRACKED,
)


@hot
def header(w, at):
    """Byte index and size of the TCP header of the frame at ``at``, which is in the scratch words."""
    return at + w[SCRATCH_AT + F_L4], w[SCRATCH_AT + F_DATA] - w[SCRATCH_AT + F_L4]


@hot
def tell_isn(u8, w, row, c, at, state):
    """The guest's SYN or SYN+ACK in the scratch words tells the secondary's ISN and clock."""
    change(w, c + C_STATE, state)
    change(w, c + C_LOCAL_ISN, w[SCRATCH_AT + F_SEQ])
    tcp, size = header(w, at)
    ts = timestamps(u8, tcp, size)
    change(w, c + C_TS_LOCAL, be32(u8, tcp + ts) if ts >= 0 else -1)
    change(w, c + C_GENERATION, w[row + layout.ROW_SCALARS + S_GENERATION])


@hot
def answered(u8, w, row, c, at):
    """A SYN+ACK of the guest."""
    seq, first = w[SCRATCH_AT + F_SEQ], w[SCRATCH_AT + F_ACK]
    state = w[c + C_STATE]
    if state == ESTABLISHED:
        if w[c + C_FIRST_SEQ] == first and (w[c + R_CLOSED] == 0 or w[c + C_LOCAL_ISN] == seq):
            return  # sent again, and the connection is older than it
        if not renew(w, row, c):
            return
    elif w[c + R_CLOSED] == 1 or (state == ANSWERED and w[c + C_FIRST_SEQ] != first):
        if not renew(w, row, c):
            return
    if w[c + C_LOCAL_ISN] != seq:
        change(w, c + C_GUEST_OPENED, 0)  # not the SYN+ACK of a simultaneous open, which has the ISN of the SYN
    change(w, c + C_FIRST_SEQ, first)
    change(w, c + C_ACK_OUT, first)
    tell_isn(u8, w, row, c, at, ANSWERED)


@hot
def asked(u8, w, row, c, at):
    """A SYN of the guest: it opens the connection."""
    if w[c + C_STATE] == LEFT_ALONE and w[c + C_LOCAL_ISN] == w[SCRATCH_AT + F_SEQ]:
        return  # sent again, perhaps without its data, which the answer may acknowledge all the same
    if w[SCRATCH_AT + F_DATA_LEN] > 0:
        # The answer may acknowledge the data or not (RFC 7413), so it does not tell the primary's ISN.
        leave_alone(w, row, c)
        change(w, c + C_LOCAL_ISN, w[SCRATCH_AT + F_SEQ])
        count(w, row, UNTRACKED, 1)
        return
    if w[c + R_CLOSED] == 1:
        if not renew(w, row, c):
            return
    elif w[c + C_STATE] == ESTABLISHED:
        # Compared as the peer sees them: after a checkpoint the guest sends the primary's SYN again.
        wire = add(w[SCRATCH_AT + F_SEQ], -current(w, row, c, C_OFFSET))
        if wire == add(w[c + C_LOCAL_ISN], -w[c + C_OFFSET]) or not renew(w, row, c):
            return
    change(w, c + C_GUEST_OPENED, 1)
    change(w, c + C_FIRST_SEQ, -1)
    tell_isn(u8, w, row, c, at, OPENING)


@hot
def learn(u8, w, c, at):
    """The inbound ACK in the scratch words acknowledges the primary's SYN: it tells its ISN and clock."""
    put(w, c + C_STATE, ESTABLISHED)
    change(w, c + C_OFFSET, add(w[c + C_LOCAL_ISN], 1 - w[SCRATCH_AT + F_ACK]))
    tcp, size = header(w, at)
    ts = timestamps(u8, tcp, size)
    known = ts >= 0 and w[c + C_TS_LOCAL] >= 0
    change(w, c + C_TS_OFFSET, add(w[c + C_TS_LOCAL], -be32(u8, tcp + ts + 4)) if known else 0)
    if w[c + R_CLOSED] == 0:
        keep(w, c)


@hot
def establish(u8, w, c, at):
    """An inbound ACK without SYN on a connection that is not established."""
    state = w[c + C_STATE]
    if state == ANSWERED:
        first = diff(w[SCRATCH_AT + F_SEQ], w[c + C_FIRST_SEQ])
        if 0 <= first <= FIRST_WINDOW:  # it can belong to this connection
            learn(u8, w, c, at)
    elif state == OPENING and w[SCRATCH_AT + F_FLAGS] & RST:
        learn(u8, w, c, at)  # the peer refuses; without RST it acknowledges something older (RFC 9293, 3.5.1)


@hot
def accepted(u8, w, row, c, now, at):
    """A SYN+ACK of the peer; the counter that it falls under, -1: it is to be rewritten.

    The secondary that has sent no SYN is a copy of the primary (a checkpoint came between the primary's SYN and this),
    for which it is right as it is, or it lags on a connection that is not compared, which nothing here can mend.
    """
    if c < 0:
        return PASSED_UNKNOWN if w[row + layout.ROW_SCALARS + S_ALONE] == 1 else PASSED_UNASKED
    state = w[c + C_STATE]
    if state == LEFT_ALONE:
        return PASSED_UNKNOWN
    touch(w, c, now)
    if w[c + C_GUEST_OPENED] == 0:
        return PASSED_UNASKED
    first = add(w[SCRATCH_AT + F_SEQ], 1)
    if state == OPENING:
        change(w, c + C_FIRST_SEQ, first)
        change(w, c + C_ACK_OUT, first)  # the guest is about to send it
    if state == OPENING or (state == ANSWERED and w[c + C_FIRST_SEQ] == first):
        learn(u8, w, c, at)
    return -1 if w[c + C_STATE] == ESTABLISHED else PASSED_HANDSHAKE


@hot
def handshake(u8, w, row, c, now, at, inbound):
    """A SYN or SYN+ACK; the counter that it falls under, and it goes out as it is, or -1: it is to be rewritten.

    An inbound SYN on a known connection changes nothing: it may be sent again, late or forged.  Whether the guest
    takes it for a new connection shows in the guest's SYN+ACK.
    """
    flags = w[SCRATCH_AT + F_FLAGS]
    if flags & (FIN | RST):
        return PASSED_HANDSHAKE if c >= 0 else PASSED_UNKNOWN
    if inbound and flags & ACK:
        return accepted(u8, w, row, c, now, at)
    if c < 0:
        if w[row + layout.ROW_SCALARS + S_ALONE] == 1:
            return PASSED_UNKNOWN
        with_data = not inbound and flags & ACK == 0 and w[SCRATCH_AT + F_DATA_LEN] > 0
        c = new_alone(w, row, now) if with_data else new_connection(w, row, now)
        if c < 0:
            count(w, row, UNTRACKED, 1)
            return PASSED_UNKNOWN
    touch(w, c, now)
    if not inbound:
        if flags & ACK:
            answered(u8, w, row, c, at)
        else:
            asked(u8, w, row, c, at)
    return PASSED_UNKNOWN if w[c + C_STATE] == LEFT_ALONE else PASSED_HANDSHAKE
