"""filter-rewriter: ``ack += seq_offset`` towards the guest, ``seq -= seq_offset`` from it.

SACK blocks and timestamps move with them: inbound blocks ``+= seq_offset`` and ``TSecr += ts_offset``, outbound
``TSval -= ts_offset``.

A burst is copied to the output as it is, then patched there: those bytes lie beyond the published tail, so a crash
before the commit leaves them unseen and the next incarnation copies them again from the input.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import be16, be32, byte, put_be16
from ring.hot import hot, kernel
from ring.kernels.frames import index, prefix, record_size, vnet_bytes
from ring.kernels.ledger import begin, blocked, commit, count, nothing_to_read, readable, true_row, undo_left
from stages.packets.kernels.checksum import fold, updated
from stages.packets.kernels.forward import copy_frames, fitting, forward
from stages.packets.kernels.parse import reverse_key
from stages.packets.kernels.serial import add, diff
from stages.packets.kernels.table import find, touch
from stages.packets.kernels.tcp_options import move, move_sack, move_timestamp
from stages.packets.kernels.tunnels import is_partial, read_packet
from stages.packets.layout import parsed, rows, tcp, transports
from stages.rewriter.kernels.announcements import announce, begin_announcement, round_due
from stages.rewriter.kernels.connections import change, current, end_connection
from stages.rewriter.kernels.discovery import hear
from stages.rewriter.kernels.handshake import establish, handshake, header
from stages.rewriter.kernels.icmp_errors import rewrite_error
from stages.rewriter.layout import addresses, conns, counters, options, ports, scalars, tables

_TCP = 6  # protocol number
_SEQ, _ACK, _CHECKSUM = 4, 8, 16  # offsets in the TCP header
_TSVAL, _TSECR = 0, 4  # offsets in the timestamps option, after kind and length


# --- segments ---------------------------------------------------------------------------------------------------
@hot
def note_fins(w, row, c, wire, seen, acked, own, other):
    """Follow the FINs.  ``wire`` is the segment's seq as the peer sees it, so that no checkpoint moves it.

    ``seen``: bit of this direction's FIN, whose end is kept in word ``own``; ``acked``: bit that says that this
    direction has acknowledged the other one's FIN, which ends at word ``other``: exactly there, as nothing follows
    a FIN.  So a forged one with a number of the past is never acknowledged.
    """
    flags, fins = w[tables.SCRATCH_AT + parsed.FLAGS], int(w[c + conns.FINS])
    if flags & tcp.FIN:
        fins |= seen
        change(w, c + own, add(wire, w[tables.SCRATCH_AT + parsed.DATA_LEN] + 1))
    other_seen = conns.FIN_SEEN_IN + conns.FIN_SEEN_OUT - seen
    if flags & tcp.ACK and fins & other_seen and w[tables.SCRATCH_AT + parsed.ACK] == w[c + other]:
        fins |= acked
    change(w, c + conns.FINS, fins)
    if fins & (conns.FIN_ACKED_IN | conns.FIN_ACKED_OUT) == conns.FIN_ACKED_IN | conns.FIN_ACKED_OUT:
        end_connection(w, row, c, counters.CONNECTIONS_CLOSED)


@hot
def mend_checksum(u8, tcp_at, delta, partial):
    """Put the change of the sum into the TCP checksum; a partial one covers only the pseudo-header."""
    if not partial:
        put_be16(u8, tcp_at + _CHECKSUM, updated(be16(u8, tcp_at + _CHECKSUM), delta))


@hot
def move_in(u8, w, row, c, at, partial):
    """Move the inbound segment to the secondary's numbers; the counter that it falls under."""
    offset, ts_offset = current(w, row, c, conns.SEQ_OFFSET), current(w, row, c, conns.TS_OFFSET)
    if offset == 0 and ts_offset == 0:
        return counters.PASSED_ALIGNED
    tcp_at, size = header(w, at)
    delta = 0
    if offset != 0:
        delta = fold(move(u8, tcp_at, _ACK, offset) + move_sack(u8, tcp_at, size, offset))
    if ts_offset != 0:
        delta = fold(delta + move_timestamp(u8, tcp_at, size, _TSECR, ts_offset))
    mend_checksum(u8, tcp_at, delta, partial)
    return counters.REWRITTEN_IN


@hot
def reset_counts(w, c, before):
    """Whether the inbound RST ends the connection, whose state was ``before``; a blind one must not (RFC 5961).

    The guest takes it at the number that it expects; the last ack seen here may be older than that number.
    """
    if before == conns.OPENING:
        # A refusal has ACK; without it, it ends no attempt (RFC 9293, 3.10.7.3).
        return w[c + conns.STATE] == conns.ESTABLISHED
    if before != conns.ANSWERED and before != conns.ESTABLISHED:
        return False
    return 0 <= diff(w[tables.SCRATCH_AT + parsed.SEQ], w[c + conns.ACK_OUT]) <= conns.RESET_WINDOW


@hot
def inward(u8, w, row, c, at, partial):
    """A segment without SYN to the guest, on a known connection; the counter that it falls under."""
    flags, before = w[tables.SCRATCH_AT + parsed.FLAGS], w[c + conns.STATE]
    if flags & tcp.ACK and before != conns.ESTABLISHED:
        establish(u8, w, c, at)
    if w[c + conns.STATE] == conns.ESTABLISHED:
        note_fins(
            w,
            row,
            c,
            w[tables.SCRATCH_AT + parsed.SEQ],
            conns.FIN_SEEN_IN,
            conns.FIN_ACKED_OUT,
            conns.FIN_IN,
            conns.FIN_OUT,
        )
    if flags & tcp.RST and reset_counts(w, c, before):
        end_connection(w, row, c, counters.CONNECTIONS_RESET)
    if w[c + conns.STATE] != conns.ESTABLISHED:
        return counters.PASSED_HANDSHAKE
    if flags & tcp.ACK == 0:
        return counters.PASSED_NO_NUMBER
    return move_in(u8, w, row, c, at, partial)


@hot
def outward(u8, w, row, c, at, partial):
    """A segment without SYN from the guest, on a known connection; the counter that it falls under.

    A RST without ACK carries a number too: the ack of what it answers (RFC 9293, 3.5.2), which was rewritten here.  One
    with ACK and number 0 on a connection that is over answers what has no ack, a SYN again: it has no number.
    """
    flags = w[tables.SCRATCH_AT + parsed.FLAGS]
    seq = w[tables.SCRATCH_AT + parsed.SEQ]
    if flags & tcp.ACK:
        change(w, c + conns.ACK_OUT, w[tables.SCRATCH_AT + parsed.ACK])
    offset, ts_offset = current(w, row, c, conns.SEQ_OFFSET), current(w, row, c, conns.TS_OFFSET)
    wire = add(seq, -offset)
    if w[c + conns.STATE] == conns.ESTABLISHED:
        note_fins(w, row, c, wire, conns.FIN_SEEN_OUT, conns.FIN_ACKED_IN, conns.FIN_OUT, conns.FIN_IN)
    if flags & tcp.RST:
        if flags & tcp.ACK and seq == 0 and w[c + rows.CLOSED] == 1:
            return counters.PASSED_NO_NUMBER
        if w[c + conns.STATE] != conns.OPENING:  # it answers something older, and the guest's own attempt goes on
            end_connection(w, row, c, counters.CONNECTIONS_RESET)
    if w[c + conns.STATE] != conns.ESTABLISHED:
        return counters.PASSED_HANDSHAKE
    if flags & (tcp.ACK | tcp.RST) == 0:
        return counters.PASSED_NO_NUMBER
    if offset == 0 and ts_offset == 0:
        return counters.PASSED_ALIGNED
    tcp_at, size = header(w, at)
    delta = 0
    if offset != 0:
        delta = move(u8, tcp_at, _SEQ, -offset)
    if ts_offset != 0:
        delta = fold(delta + move_timestamp(u8, tcp_at, size, _TSVAL, -ts_offset))
    mend_checksum(u8, tcp_at, delta, partial)
    return counters.REWRITTEN_OUT


@hot
def first_fragment(u8, w, at):
    """Whether the fragment in the scratch words holds a whole TCP header without SYN: then it is read like a segment.

    The checksum is updated by the difference, so the other fragments are not needed.  How long the segment is cannot
    be told, so its FIN counts for nothing.
    """
    l4, end = w[tables.SCRATCH_AT + parsed.L4], w[tables.SCRATCH_AT + parsed.END]
    if w[tables.SCRATCH_AT + parsed.PROTO] != _TCP or w[tables.SCRATCH_AT + parsed.FRAG] >> 4 != 0 or end < l4 + 20:
        return False
    size, flags = (byte(u8, at + l4 + 12) >> 4) * 4, byte(u8, at + l4 + 13)
    if size < 20 or end < l4 + size or flags & tcp.SYN:
        return False
    w[tables.SCRATCH_AT + parsed.PORTS] |= be32(u8, at + l4)
    w[tables.SCRATCH_AT + parsed.SEQ] = be32(u8, at + l4 + _SEQ)
    w[tables.SCRATCH_AT + parsed.ACK] = be32(u8, at + l4 + _ACK)
    w[tables.SCRATCH_AT + parsed.FLAGS] = flags & ~tcp.FIN
    w[tables.SCRATCH_AT + parsed.DATA] = l4 + size
    w[tables.SCRATCH_AT + parsed.DATA_LEN] = end - l4 - size
    return True


@hot
def rewrite_frame(u8, w, row, now, at, length, vnet, inbound):
    """One Ethernet frame of ``length`` bytes at byte index ``at``; the counter that it falls under.

    ``vnet`` bytes of a virtio-net header stand before it.  Of a tunnel's packet the one inside is meant: the checksums
    around it need no touch, as its own one's complement sum stays what it was.
    """
    transport = read_packet(u8, w, at, length, tables.SCRATCH_AT, w[options.TUNNELS])
    if transport == transports.FRAGMENT:
        if not first_fragment(u8, w, at):
            return counters.PASSED_FRAGMENT
    elif transport != transports.TCP:
        if inbound and transport == transports.ICMP:
            return rewrite_error(u8, w, row, at, is_partial(u8, w, tables.SCRATCH_AT, at, vnet))
        return counters.PASSED_ENCAPSULATED if transport == transports.ENCAPSULATED else counters.PASSED_NOT_TCP
    partial = is_partial(u8, w, tables.SCRATCH_AT, at, vnet)
    if not inbound:
        reverse_key(w, tables.SCRATCH_AT)
    c = find(w, tables.TABLE_AT, tables.SCRATCH_AT)
    if w[tables.SCRATCH_AT + parsed.FLAGS] & tcp.SYN:
        counter = handshake(u8, w, row, c, now, at, inbound)
        return counter if counter >= 0 else move_in(u8, w, row, c, at, partial)
    if c < 0 or w[c + conns.STATE] == conns.LEFT_ALONE:
        return counters.PASSED_UNKNOWN
    touch(w, c, now)
    if inbound:
        return inward(u8, w, row, c, at, partial)
    return outward(u8, w, row, c, at, partial)


# --- bursts -----------------------------------------------------------------------------------------------------
@hot
def rewrite_direction(u8, w, row, now, i, o):
    """A burst from input ``i`` to output ``o``, rewritten; the number of frames."""
    if w[layout.CMD_STATUS] != 1:
        frames = forward(u8, w, row, i, o, -1)
        count(w, row, counters.PASSED_OFF, frames)
        return frames
    source, target = w[layout.INPUTS + i], w[layout.OUTPUTS + o]
    start, end = w[row + layout.ROW_HEADS + i], readable(w, row, i)
    if source == 0 or target == 0 or end == start:
        return 0
    stop, frames = fitting(u8, w, row, source, start, end, o)
    if frames == 0:
        blocked(w, o)
        return 0
    tail = w[row + layout.ROW_TAILS + o]
    copy_frames(u8, w, row, source, start, stop, frames, o)
    lead = prefix(w, target)
    position, done = start, 0
    while done < frames and undo_left(w) >= tables.PACKET_PUTS + tables.MOVE_PUTS + addresses.LEARN_PUTS:
        at = index(w, target, tail)
        length = be32(u8, at)
        vnet = vnet_bytes(u8, w, target, at)
        if lead == 8:
            w[row + layout.ROW_SCALARS + scalars.HEADER] = vnet
        hear(u8, w, row, now, at + lead + vnet, length - vnet, vnet, i == ports.TX_IN)
        counter = rewrite_frame(u8, w, row, now, at + lead + vnet, length - vnet, vnet, i == ports.TX_IN)
        count(w, row, counter, 1)
        position += record_size(u8, w, source, position)
        tail += lead + length
        done += 1
    # Frames that the undo log had no room for stay in the input; their copies are behind the tail.
    w[row + layout.ROW_TAILS + o] = tail
    count(w, row, layout.PORTS + o, done - frames)
    w[row + layout.ROW_HEADS + i] = position
    count(w, row, i, done)
    return done


@hot
def event_waits(w, row):
    """Whether the row has not taken all that the control socket has said."""
    at = row + layout.ROW_SCALARS
    return (
        w[layout.CMD_CHECKPOINT] != w[at + scalars.CHECKPOINTS]
        or w[layout.CMD_FAILOVER] != w[at + scalars.FAILOVERS]
        or w[layout.CMD_ANNOUNCE] != w[at + scalars.ANNOUNCES]
    )


@hot
def take_events(w, row, now):
    """Take announced checkpoints and failovers, and wishes for an announcement; how many.

    No connection is touched: offsets of an older generation count as 0.  After a failover this side is no secondary any
    more, and a checkpoint of it as a primary must not change what its clients see.
    """
    checkpoints = w[layout.CMD_CHECKPOINT] - w[row + layout.ROW_SCALARS + scalars.CHECKPOINTS]
    failovers = w[layout.CMD_FAILOVER] - w[row + layout.ROW_SCALARS + scalars.FAILOVERS]
    w[row + layout.ROW_SCALARS + scalars.CHECKPOINTS] += checkpoints
    w[row + layout.ROW_SCALARS + scalars.FAILOVERS] += failovers
    announces = w[layout.CMD_ANNOUNCE] - w[row + layout.ROW_SCALARS + scalars.ANNOUNCES]
    w[row + layout.ROW_SCALARS + scalars.ANNOUNCES] += announces
    if checkpoints != 0 and w[row + layout.ROW_SCALARS + scalars.ALONE] == 0:
        w[row + layout.ROW_SCALARS + scalars.GENERATION] += 1
    if failovers != 0:
        w[row + layout.ROW_SCALARS + scalars.ALONE] = 1
        begin_announcement(w, row, now, w[options.ROUNDS])
    if announces != 0 and w[row + layout.ROW_SCALARS + scalars.ALONE] == 1:
        begin_announcement(w, row, now, max(w[options.ROUNDS], 1))
    count(w, row, counters.CHECKPOINTS, checkpoints)
    count(w, row, counters.FAILOVERS, failovers)
    return checkpoints + failovers + announces


@kernel
def rewriter_burst(u8, w, now):
    """Events first, then what is to be announced, then one burst of each direction.

    Both share the undo log.  Whoever comes first may need all of it, so the order turns with each burst.
    """
    w[layout.BLOCKED] = 0
    row = true_row(w)
    if nothing_to_read(w) and not event_waits(w, row) and not round_due(w, row, now):
        return 0
    row = begin(w)
    work = take_events(w, row, now)
    work += announce(u8, w, row, now)
    if w[layout.COMMITTED] & 1:
        work += rewrite_direction(u8, w, row, now, ports.RX_IN, ports.RX_OUT)
        work += rewrite_direction(u8, w, row, now, ports.TX_IN, ports.TX_OUT)
    else:
        work += rewrite_direction(u8, w, row, now, ports.TX_IN, ports.TX_OUT)
        work += rewrite_direction(u8, w, row, now, ports.RX_IN, ports.RX_OUT)
    if work == 0:
        return 0
    return commit(w, row, now, work)
