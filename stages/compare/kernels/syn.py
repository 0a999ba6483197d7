"""The lives of a TCP connection in the compare: a SYN with a new sequence number begins one, a checkpoint joins them.

The two replicas may be in different lives for a while.  The secondary's packets carry theirs (``S_LIFE``): those of a
life that the primary has not begun wait, those of one that it has left are void.
"""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import put, scalar
from stages.compare.kernels.rules import restart
from stages.compare.kernels.slots import slot
from stages.compare.kernels.verdict import queue_work
from stages.compare.layout.words import (
    ACKS,
    C_COMPARED,
    C_CURSOR,
    C_EPOCH,
    C_FLAGS,
    C_HEAD,
    C_LIFE,
    C_P_ISN,
    C_P_MAX_ACK,
    C_P_NEXT,
    C_S_ISN,
    C_S_LIFE,
    C_S_MAX_ACK,
    C_TAIL,
    C_VERDICT,
    CF_DIVERGED,
    CF_P_ACK,
    CF_P_NEXT,
    CF_P_RST,
    CF_P_SYN,
    CF_PASS,
    CF_RULE,
    CF_S_ACK,
    CF_S_RST,
    CF_SYN_MATCHED,
    CF_SYNCED,
    CF_WORK,
    O_STUCK,
    PACKETS,
    S_DATA_LEN,
    S_END,
    S_FLAGS,
    S_LIFE,
    S_NEXT,
    S_SEQ,
    SC_GENERATION,
    SECONDARY,
)
from stages.packets.kernels.serial import add, diff
from stages.packets.layout.packet import ACK, FIN, RST, SYN, TCP
from stages.packets.layout.table import R_CLOSED


@hot
def primary_syn(w, row, c, seq, flags):
    """A SYN of the primary, number ``seq``; False while packets of the connection's former life have to leave first."""
    state = w[c + C_FLAGS]
    if state & (CF_P_SYN | CF_SYN_MATCHED) and w[c + C_P_ISN] == seq:
        return True  # sent again
    if w[c + C_HEAD + PACKETS] != 0 or w[c + C_HEAD + ACKS] != 0:
        if state & (CF_PASS | CF_RULE) == 0 and _waits(w, c, flags):
            w[O_STUCK] |= 1  # until it is compared, the secondary begins anew, too, or its time is over
            return False
        # The rest (acknowledgements, a reset if it is the client that begins anew) means nothing any more.
        put(w, c + C_FLAGS, state | CF_PASS)
        queue_work(w, row, c)
        return False
    kept = state & (CF_WORK | CF_RULE)
    if w[c + C_S_LIFE] > w[c + C_LIFE]:  # the secondary has begun it already
        kept |= CF_SYN_MATCHED | state & (CF_S_ACK | CF_S_RST)
        put(w, c + C_LIFE, w[c + C_LIFE] + 1)
        _place_syn_data(w, c, add(seq, 1))
    else:
        kept |= CF_P_SYN
        # Where nothing was compared yet, what the secondary has sent is of this life.
        put(w, c + C_LIFE, w[c + C_S_LIFE] + (1 if state & CF_SYNCED else 0))
    put(w, c + C_FLAGS, kept | CF_SYNCED)
    put(w, c + C_P_ISN, seq)
    put(w, c + C_COMPARED, add(seq, 1))
    put(w, c + C_CURSOR, 0)
    put(w, c + R_CLOSED, 0)
    restart(w, c)
    return True


@hot
def _waits(w, c, flags):
    """Whether a SYN, bytes or a FIN are held that the secondary has not sent yet, or has sent otherwise.

    Or a reset, where the new SYN (its ``flags``) answers no client: that one has not begun anew, and is not to hear of
    a reset from the primary alone.
    """
    if w[c + C_FLAGS] & CF_DIVERGED:
        return True
    if w[c + C_S_LIFE] > w[c + C_LIFE]:
        return False  # nor will it: it has begun anew
    if w[c + C_FLAGS] & CF_P_SYN:
        return True
    last = w[c + C_TAIL + ACKS] - 1
    if flags & ACK == 0 and last >= 0 and w[slot(w, last) + S_FLAGS] & RST and w[c + C_FLAGS] & CF_S_RST == 0:
        return True
    n = w[c + C_HEAD + PACKETS]
    while n != 0:
        x = slot(w, n - 1)
        if (w[x + S_DATA_LEN] > 0 or w[x + S_FLAGS] & FIN) and diff(w[x + S_END], w[c + C_COMPARED]) > 0:
            return True
        n = w[x + S_NEXT]
    return False


@hot
def _place_syn_data(w, c, seq):
    """Data in the secondary's SYN (RFC 7413) stands at ``seq``, now that the primary's SYN says where that is."""
    n = w[c + C_HEAD + SECONDARY]
    while n != 0:
        x = slot(w, n - 1)
        if w[x + S_LIFE] == w[c + C_LIFE]:
            if w[x + S_FLAGS] & SYN:
                put(w, x + S_SEQ, seq)
                put(w, x + S_END, add(seq, w[x + S_DATA_LEN]))
            return
        n = w[x + S_NEXT]


@hot
def secondary_syn_known(w, c, seq):
    """Whether the secondary's SYN ``seq`` was seen before."""
    seen = w[c + C_FLAGS] & CF_SYN_MATCHED != 0 or w[c + C_S_LIFE] > w[c + C_LIFE]
    return seen and w[c + C_S_ISN] == seq


@hot
def secondary_syn(w, c, seq):
    """A new SYN of the secondary: the one that the primary has sent, or the first sign of a new life."""
    state = w[c + C_FLAGS] & ~CF_S_RST
    put(w, c + C_S_ISN, seq)
    if state & CF_P_SYN:
        put(w, c + C_FLAGS, state & ~CF_P_SYN | CF_SYN_MATCHED)
        put(w, c + C_S_LIFE, w[c + C_LIFE])
    else:
        put(w, c + C_FLAGS, state)
        put(w, c + C_S_LIFE, w[c + C_S_LIFE] + 1)


@hot
def catch_up(w, row, c):
    """After a checkpoint the secondary is a copy of the primary: it has sent and acknowledged exactly what that has.

    Where a secondary came that is no copy (checkpoint = "local"), the connection passes until it begins anew.  Done
    when the next packet of the connection comes, so that a checkpoint need not look at every row.
    """
    generation = w[scalar(row, SC_GENERATION)]
    rejoin(w, c)
    if generation & 1 and w[c + C_VERDICT] == TCP:
        put(w, c + C_FLAGS, w[c + C_FLAGS] | CF_PASS)
    put(w, c + C_EPOCH, generation)


@hot
def rejoin(w, c):
    """Compare from where the primary is now."""
    state = w[c + C_FLAGS] & ~(CF_DIVERGED | CF_PASS | CF_P_RST | CF_S_RST | CF_S_ACK)
    if state & CF_P_SYN:
        state = state & ~CF_P_SYN | CF_SYN_MATCHED
    if state & CF_SYN_MATCHED:
        put(w, c + C_S_ISN, w[c + C_P_ISN])
    if state & CF_SYNCED and state & CF_P_NEXT:
        put(w, c + C_COMPARED, w[c + C_P_NEXT])
    if state & CF_P_ACK:
        put(w, c + C_S_MAX_ACK, w[c + C_P_MAX_ACK])
        state |= CF_S_ACK
    put(w, c + C_S_LIFE, w[c + C_LIFE])
    put(w, c + C_FLAGS, state)
    restart(w, c)  # what lies between was not read
