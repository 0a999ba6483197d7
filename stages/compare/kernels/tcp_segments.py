"""TCP in the compare: both outputs as streams of bytes by sequence number (RFC 9293), whatever the segmentation.

`conns.COMPARED` is the sequence number up to which both streams were equal.  A primary segment may leave when its end
is at or before it, and, with ``ack_policy = "strict"``, when the secondary has acknowledged as much as it does: else
the client would be told that data is safe which would be lost with the primary.  SYN is matched by SYN (the secondary's
has a sequence number of its own), FIN by FIN at the same place, RST by RST.  All order is serial (RFC 1982).  Packets
are taken from the rings here; `service` goes on with what is held.
"""

from __future__ import annotations

from ring.atomics import byte, common_prefix
from ring.hot import hot
from ring.kernels.ledger import count, put
from stages.compare.kernels.release import release_packet
from stages.compare.kernels.rules import restart
from stages.compare.kernels.slots import link, slot, store_packet, unlink
from stages.compare.kernels.syn import primary_syn, secondary_syn, secondary_syn_known
from stages.compare.kernels.tcp_compare import (
    NOT_NOW,
    RESETS,
    acknowledged,
    drop_counts,
    forget_resets,
    has_reset,
    holds_reset,
    note_reset,
    release_counts,
    service,
)
from stages.compare.kernels.timestamps import note_overtaking
from stages.compare.layout import conns, counters, options, slots
from stages.packets.kernels.serial import add, after, diff
from stages.packets.layout import parsed, tcp

# What became of a segment of the secondary: counted; equal to one that is held; held itself; left in the ring.
COUNTED, MATCHED_HELD, HELD, WAITS = range(4)


@hot
def note_primary(w, row, c, s):
    """Note what the primary's segment (fields at ``s``) says of its stream; False where it has to wait in the ring."""
    flags = w[s + parsed.FLAGS]
    seq = w[s + parsed.SEQ]
    end = add(seq, w[s + parsed.DATA_LEN] + (flags & tcp.FIN) + (flags >> 1 & 1))
    if flags & (tcp.SYN | tcp.RST) == tcp.SYN and not primary_syn(w, row, c, seq, flags):
        return False
    before = w[c + conns.FLAGS]
    state = before
    if flags & tcp.ACK and (state & conns.CF_P_ACK == 0 or after(w[s + parsed.ACK], w[c + conns.PRIMARY_MAX_ACK])):
        put(w, c + conns.PRIMARY_MAX_ACK, w[s + parsed.ACK])
        state |= conns.CF_P_ACK
    if flags & tcp.RST:
        state |= conns.CF_P_RST  # its sequence number may be anything: it says nothing of the stream
    else:
        if state & conns.CF_P_NEXT == 0 or after(end, w[c + conns.PRIMARY_NEXT]):
            put(w, c + conns.PRIMARY_NEXT, end)
            state |= conns.CF_P_NEXT
            if state & RESETS == RESETS and not holds_reset(w, c):
                forget_resets(w, c)
                state &= ~RESETS
        if state & conns.CF_SYNCED == 0 and end != seq:
            # Picked up in the middle: comparison starts where the primary is (a keepalive may be one byte behind that).
            put(w, c + conns.COMPARED, seq)
            state |= conns.CF_SYNCED
            restart(w, c)
    if state != before:
        put(w, c + conns.FLAGS, state)
    return True


@hot
def _is_probe(u8, w, s):
    """Whether a segment may be a keepalive with its byte of garbage, one behind the stream (RFC 1122, 4.2.3.6).

    Systems that send the byte send a zero.  Where the stream is known it is a byte that was sent before.
    """
    alone = w[s + parsed.DATA_LEN] == 1 and w[s + parsed.FLAGS] & (tcp.SYN | tcp.FIN | tcp.RST) == 0
    return alone and byte(u8, w[s + parsed.FRAME] + w[s + parsed.DATA]) == 0


@hot
def tcp_primary(u8, w, row, c, s, now):
    """Take the primary's segment at hand (fields at ``s``); False where it has to wait in the ring."""
    known = w[c + conns.FLAGS] & conns.CF_SYNCED
    if not note_primary(w, row, c, s):
        return False
    if known == 0 and w[c + conns.FLAGS] & conns.CF_SYNCED and _is_probe(u8, w, s):
        put(w, c + conns.COMPARED, add(w[s + parsed.SEQ], 1))  # what is picked up in the middle begins behind it
    flags = w[s + parsed.FLAGS]
    seq = w[s + parsed.SEQ]
    end = add(seq, w[s + parsed.DATA_LEN] + (flags & tcp.FIN) + (flags >> 1 & 1))
    state = w[c + conns.FLAGS]
    compared = w[c + conns.COMPARED]
    if state & conns.PASSES:
        free, which = True, conns.ACKS
    elif flags & tcp.RST:
        free, which = has_reset(w, c), conns.ACKS
    elif flags & tcp.SYN:
        free, which = state & conns.CF_SYN_MATCHED != 0 and diff(end, compared) <= 0, conns.PACKETS
    else:
        # Without data, or sent before: nothing to compare, only the acknowledgement counts.
        free = end == seq or diff(end, compared) <= 0
        which = conns.ACKS if free else conns.PACKETS
    if not free and which == conns.PACKETS and flags & (tcp.SYN | tcp.FIN | tcp.RST) == 0:
        free = _equal_waiting(u8, w, row, c, s, end)
    nothing_before = which == conns.PACKETS or w[c + conns.HEAD + conns.ACKS] == 0
    if flags & tcp.RST or state & conns.PASSES:  # what the primary sent before it leaves before it
        nothing_before = nothing_before and w[c + conns.HEAD + conns.PACKETS] == 0
    if (
        free
        and nothing_before
        and (state & conns.PASSES or flags & tcp.RST or acknowledged(w, c, flags, w[s + parsed.ACK]))
    ):
        if release_packet(u8, w, row, s):
            if which == conns.ACKS and w[c + conns.HEAD + conns.PACKETS] != 0:
                note_overtaking(u8, w, c, w[s + parsed.FRAME], s)
            release_counts(w, row, c, 1)
            note_reset(w, c)
            if (which == conns.PACKETS or flags & tcp.RST) and w[c + conns.HEAD + conns.SECONDARY] != 0:
                service(u8, w, row, c, now)  # its equal waits, or the secondary has sent the same bytes twice
            return True
        if which == conns.ACKS:
            return False
    return _hold_primary(u8, w, row, c, s, end, which, now)


@hot
def _hold_primary(u8, w, row, c, s, end, which, now):
    if w[c + conns.COUNT + conns.PACKETS] + w[c + conns.COUNT + conns.ACKS] >= w[options.MAX_QUEUE]:
        w[options.STUCK] |= 1
        return False
    n = store_packet(u8, w, row, 0, s, now)
    if n < 0:
        w[options.STUCK] |= 1
        return False
    x = slot(w, n)
    # Where a reset stands in the stream.
    w[x + slots.END] = w[c + conns.PRIMARY_NEXT] if w[s + parsed.FLAGS] & tcp.RST else end
    link(w, row, c, which, n, which == conns.PACKETS)
    if which == conns.PACKETS and diff(end, w[c + conns.COMPARED]) > 0:
        if w[x + slots.NEXT] != 0:
            put(w, c + conns.CURSOR, _first_uncompared(w, c))
        elif w[c + conns.CURSOR] == 0:
            put(w, c + conns.CURSOR, n + 1)
    service(u8, w, row, c, now)
    return True


@hot
def _first_uncompared(w, c):
    n = w[c + conns.HEAD + conns.PACKETS]
    while n != 0 and diff(w[slot(w, n - 1) + slots.END], w[c + conns.COMPARED]) <= 0:
        n = w[slot(w, n - 1) + slots.NEXT]
    return n


@hot
def _equal_waiting(u8, w, row, c, s, end):
    """The common case without a copy: the secondary's equal segment is the next one, and nothing else waits."""
    seq = w[s + parsed.SEQ]
    n = w[c + conns.HEAD + conns.SECONDARY] - 1
    if n < 0 or w[c + conns.HEAD + conns.PACKETS] != 0 or seq != w[c + conns.COMPARED] or w[c + conns.FLAGS] & NOT_NOW:
        return False
    if w[c + conns.RULE] != 0:  # a mask has to read every byte
        return False
    x = slot(w, n)
    if (
        w[x + slots.SEQ] != seq
        or w[x + slots.END] != end
        or w[x + slots.FLAGS] & (tcp.SYN | tcp.FIN)
        or w[x + slots.LIFE] != w[c + conns.LIFE]
    ):
        return False
    mine = w[s + parsed.FRAME] + w[s + parsed.DATA]
    length = w[s + parsed.DATA_LEN]
    if common_prefix(u8, mine, w[x + slots.BYTES] + w[x + slots.DATA], length) < length:
        return False
    put(w, c + conns.COMPARED, end)
    unlink(w, row, n)
    count(w, row, counters.MATCHED, 1)
    return True


@hot
def tcp_secondary(u8, w, row, c, s, now):
    """Take the secondary's segment at hand (fields at ``s``); False where it has to wait in the ring."""
    flags = w[s + parsed.FLAGS]
    if w[c + conns.FLAGS] & conns.CF_RULE:
        drop_counts(w, row, c, 1)
        return True
    if flags & (tcp.SYN | tcp.RST):
        return _secondary_begins_or_resets(u8, w, row, c, s, now)
    acknowledges_more = _note_secondary_ack(w, c, s, False)
    taken = _secondary_data(u8, w, row, c, s, now)
    if taken == HELD or taken == MATCHED_HELD or acknowledges_more:
        service(u8, w, row, c, now)  # where the segment waits in the ring, what it acknowledges does not wait
    return taken != WAITS


@hot
def _note_secondary_ack(w, c, s, begins):
    """Note what the secondary's segment acknowledges; whether that is news.  ``begins``: it is a SYN of a new life."""
    state, ack = w[c + conns.FLAGS], w[s + parsed.ACK]
    if w[s + parsed.FLAGS] & tcp.ACK == 0:
        return False
    if not begins and state & conns.CF_S_ACK != 0 and not after(ack, w[c + conns.SECONDARY_MAX_ACK]):
        return False
    put(w, c + conns.SECONDARY_MAX_ACK, ack)
    put(w, c + conns.FLAGS, state | conns.CF_S_ACK)
    return True


@hot
def _secondary_begins_or_resets(u8, w, row, c, s, now):
    """Take a SYN or a RST of the secondary; False where it has to wait in the ring."""
    flags, seq, state = w[s + parsed.FLAGS], w[s + parsed.SEQ], w[c + conns.FLAGS]
    resets = flags & tcp.RST != 0
    begins = not resets and not secondary_syn_known(w, c, seq)
    n = -1
    if _must_be_held(w, c, s, begins):
        n = _store_secondary(u8, w, row, c, s, now)
        if n < 0:
            return False
    _note_secondary_ack(w, c, s, begins)
    if resets:
        put(w, c + conns.FLAGS, w[c + conns.FLAGS] | conns.CF_S_RST)
    elif begins:
        secondary_syn(w, c, seq)
        if flags & tcp.ACK == 0:  # it has acknowledged nothing of this life
            put(w, c + conns.FLAGS, w[c + conns.FLAGS] & ~conns.CF_S_ACK)
    if n >= 0 and resets:
        _link_secondary(w, row, c, n, seq, _secondary_end(w, c), False)
    elif n >= 0:
        # Where it stands is known once the primary's SYN is.
        first = add(w[c + conns.PRIMARY_ISN], 1) if w[c + conns.FLAGS] & conns.CF_SYN_MATCHED else 0
        _link_secondary(w, row, c, n, first, add(first, w[s + parsed.DATA_LEN]), False)
    elif resets and state & conns.CF_PASS:
        drop_counts(w, row, c, 1)
    else:
        count(w, row, counters.MATCHED, 1)
    service(u8, w, row, c, now)
    note_reset(w, c)
    return True


@hot
def _must_be_held(w, c, s, begins):
    """Whether a SYN or a RST of the secondary waits for the primary's: so does data in a SYN (RFC 7413)."""
    state = w[c + conns.FLAGS]
    if w[s + parsed.FLAGS] & tcp.RST:
        known = state & (conns.CF_P_RST | conns.CF_S_RST | conns.CF_PASS)
        return known == 0 or (known == conns.CF_S_RST and _resets_farther(w, c))
    return begins and (state & conns.CF_P_SYN == 0 or w[s + parsed.DATA_LEN] > 0)


@hot
def _secondary_data(u8, w, row, c, s, now):
    """Take a segment of the secondary that is neither SYN nor RST: COUNTED, MATCHED_HELD, HELD or WAITS."""
    seq, state = w[s + parsed.SEQ], w[c + conns.FLAGS]
    end = add(seq, w[s + parsed.DATA_LEN] + (w[s + parsed.FLAGS] & tcp.FIN))
    same_life = w[c + conns.SECONDARY_LIFE] == w[c + conns.LIFE]
    if end == seq:
        count(w, row, counters.SECONDARY_ACKS, 1)
    elif w[c + conns.SECONDARY_LIFE] < w[c + conns.LIFE]:
        count(w, row, counters.DROPPED_UNCOMPARED, 1)  # of a life that the primary has left
    elif state & conns.CF_PASS and same_life:
        drop_counts(w, row, c, 1)
    elif state & conns.CF_SYNCED and same_life and diff(end, w[c + conns.COMPARED]) <= 0:
        count(w, row, counters.MATCHED, 1)  # sent again
    elif same_life and _equal_held(u8, w, c, s, end):
        count(w, row, counters.MATCHED, 1)
        return MATCHED_HELD
    else:
        n = _store_secondary(u8, w, row, c, s, now)
        if n < 0:
            return WAITS
        _link_secondary(w, row, c, n, seq, end, True)
        return HELD
    return COUNTED


@hot
def _secondary_end(w, c):
    """Where the secondary's stream ends so far."""
    n = w[c + conns.TAIL + conns.SECONDARY]
    while n != 0 and w[slot(w, n - 1) + slots.FLAGS] & tcp.RST:
        n = w[slot(w, n - 1) + slots.PREV]
    compared = w[c + conns.COMPARED]
    if (
        n == 0
        or w[slot(w, n - 1) + slots.LIFE] != w[c + conns.SECONDARY_LIFE]
        or diff(w[slot(w, n - 1) + slots.END], compared) <= 0
    ):
        return compared
    return w[slot(w, n - 1) + slots.END]


@hot
def _resets_farther(w, c):
    """Whether the secondary has gone on since its reset that is held: then another one is not the same again."""
    n = w[c + conns.TAIL + conns.SECONDARY] - 1
    if n < 0 or w[slot(w, n) + slots.FLAGS] & tcp.RST == 0 or w[slot(w, n) + slots.LIFE] != w[c + conns.SECONDARY_LIFE]:
        return False
    return diff(_secondary_end(w, c), w[slot(w, n) + slots.END]) > 0


@hot
def _store_secondary(u8, w, row, c, s, now):
    n = -1
    if w[c + conns.COUNT + conns.SECONDARY] < w[options.MAX_QUEUE]:
        n = store_packet(u8, w, row, 1, s, now)
    if n < 0:
        w[options.STUCK] |= 2
    return n


@hot
def _link_secondary(w, row, c, n, seq, end, ordered):
    x = slot(w, n)
    w[x + slots.SEQ] = seq
    w[x + slots.END] = end
    w[x + slots.LIFE] = w[c + conns.SECONDARY_LIFE]
    link(w, row, c, conns.SECONDARY, n, ordered)


@hot
def _equal_held(u8, w, c, s, end):
    """The common case without a copy: the primary's equal segment is the next one to be compared."""
    seq = w[s + parsed.SEQ]
    n = w[c + conns.CURSOR] - 1
    if (
        n < 0
        or w[c + conns.HEAD + conns.SECONDARY] != 0
        or seq != w[c + conns.COMPARED]
        or w[s + parsed.FLAGS] & tcp.FIN
        or w[c + conns.RULE] != 0
    ):
        return False
    x = slot(w, n)
    if (
        w[x + slots.SEQ] != seq
        or w[x + slots.END] != end
        or w[x + slots.FLAGS] & (tcp.SYN | tcp.FIN | tcp.RST)
        or w[c + conns.FLAGS] & NOT_NOW
    ):
        return False
    mine = w[s + parsed.FRAME] + w[s + parsed.DATA]
    length = w[s + parsed.DATA_LEN]
    if common_prefix(u8, mine, w[x + slots.BYTES] + w[x + slots.DATA], length) < length:
        return False
    put(w, c + conns.COMPARED, end)
    put(w, c + conns.CURSOR, w[x + slots.NEXT])
    return True
