"""The lives of a TCP connection in the compare: a SYN with a new sequence number begins one, a checkpoint joins them.

The two replicas may be in different lives for a while.  A slot says to which life its packet of the secondary
belongs (`slots.LIFE`): packets of a life that the primary has not begun wait, those of one that it has left are
dropped.
"""

from __future__ import annotations

from ring.hot import hot
from ring.kernels.ledger import put, scalar
from stages.compare.kernels.rules import restart
from stages.compare.kernels.slots import slot
from stages.compare.kernels.work_list import queue_work
from stages.compare.layout import conns, options, scalars, slots
from stages.packets.kernels.serial import add, diff
from stages.packets.layout import rows, tcp, transports


@hot
def primary_syn(w, row, c, seq, flags):
    """A SYN of the primary, number ``seq``; False while packets of the connection's former life have to leave first."""
    state = w[c + conns.FLAGS]
    if state & (conns.CF_P_SYN | conns.CF_SYN_MATCHED) and w[c + conns.PRIMARY_ISN] == seq:
        return True  # sent again
    if w[c + conns.HEAD + conns.PACKETS] != 0 or w[c + conns.HEAD + conns.ACKS] != 0:
        if state & (conns.CF_PASS | conns.CF_RULE) == 0 and _waits(w, c, flags):
            w[options.STUCK] |= 1  # until it is compared, the secondary sends a new SYN, too, or its time is over
            return False
        # The rest (acknowledgements, a reset if it is the client that opens it again) means nothing any more.
        put(w, c + conns.FLAGS, state | conns.CF_PASS)
        queue_work(w, row, c)
        return False
    kept = state & (conns.CF_WORK | conns.CF_RULE)
    if w[c + conns.SECONDARY_LIFE] > w[c + conns.LIFE]:  # the secondary has begun it already
        kept |= conns.CF_SYN_MATCHED | state & (conns.CF_S_ACK | conns.CF_S_RST)
        put(w, c + conns.LIFE, w[c + conns.LIFE] + 1)
        _place_syn_data(w, c, add(seq, 1))
    else:
        kept |= conns.CF_P_SYN
        # Where nothing was compared yet, what the secondary has sent is of this life.
        put(w, c + conns.LIFE, w[c + conns.SECONDARY_LIFE] + (1 if state & conns.CF_SYNCED else 0))
    put(w, c + conns.FLAGS, kept | conns.CF_SYNCED)
    put(w, c + conns.PRIMARY_ISN, seq)
    put(w, c + conns.COMPARED, add(seq, 1))
    put(w, c + conns.CURSOR, 0)
    put(w, c + rows.CLOSED, 0)
    restart(w, c)
    return True


@hot
def _waits(w, c, flags):
    """Whether a SYN, bytes or a FIN are held that the secondary has not sent yet, or has sent otherwise.

    Or a reset, where the new SYN (its ``flags``) answers no client: that one has opened nothing again, and must not
    hear of a reset from the primary alone.
    """
    if w[c + conns.FLAGS] & conns.CF_DIVERGED:
        return True
    if w[c + conns.SECONDARY_LIFE] > w[c + conns.LIFE]:
        return False  # nor will it: it is in its next life
    if w[c + conns.FLAGS] & conns.CF_P_SYN:
        return True
    last = w[c + conns.TAIL + conns.ACKS] - 1
    if (
        flags & tcp.ACK == 0
        and last >= 0
        and w[slot(w, last) + slots.FLAGS] & tcp.RST
        and w[c + conns.FLAGS] & conns.CF_S_RST == 0
    ):
        return True
    n = w[c + conns.HEAD + conns.PACKETS]
    while n != 0:
        x = slot(w, n - 1)
        if (w[x + slots.DATA_LEN] > 0 or w[x + slots.FLAGS] & tcp.FIN) and diff(
            w[x + slots.END], w[c + conns.COMPARED]
        ) > 0:
            return True
        n = w[x + slots.NEXT]
    return False


@hot
def _place_syn_data(w, c, seq):
    """Data in the secondary's SYN (RFC 7413) stands at ``seq``, now that the primary's SYN says where that is."""
    n = w[c + conns.HEAD + conns.SECONDARY]
    while n != 0:
        x = slot(w, n - 1)
        if w[x + slots.LIFE] == w[c + conns.LIFE]:
            if w[x + slots.FLAGS] & tcp.SYN:
                put(w, x + slots.SEQ, seq)
                put(w, x + slots.END, add(seq, w[x + slots.DATA_LEN]))
            return
        n = w[x + slots.NEXT]


@hot
def secondary_syn_known(w, c, seq):
    """Whether the secondary's SYN ``seq`` was seen before."""
    seen = w[c + conns.FLAGS] & conns.CF_SYN_MATCHED != 0 or w[c + conns.SECONDARY_LIFE] > w[c + conns.LIFE]
    return seen and w[c + conns.SECONDARY_ISN] == seq


@hot
def secondary_syn(w, c, seq):
    """A new SYN of the secondary: the one that the primary has sent, or the first sign of a new life."""
    state = w[c + conns.FLAGS] & ~conns.CF_S_RST
    put(w, c + conns.SECONDARY_ISN, seq)
    if state & conns.CF_P_SYN:
        put(w, c + conns.FLAGS, state & ~conns.CF_P_SYN | conns.CF_SYN_MATCHED)
        put(w, c + conns.SECONDARY_LIFE, w[c + conns.LIFE])
    else:
        put(w, c + conns.FLAGS, state)
        put(w, c + conns.SECONDARY_LIFE, w[c + conns.SECONDARY_LIFE] + 1)


@hot
def catch_up(w, row, c):
    """After a checkpoint the secondary is a copy of the primary: it has sent and acknowledged exactly what that has.

    Where a secondary came that is no copy (checkpoint = "local"), the connection passes until its next SYN.  Done
    when the next packet of the connection comes, so that a checkpoint need not look at every row.
    """
    generation = w[scalar(row, scalars.GENERATION)]
    rejoin(w, c)
    if generation & 1 and w[c + conns.TRANSPORT] == transports.TCP:
        put(w, c + conns.FLAGS, w[c + conns.FLAGS] | conns.CF_PASS)
    put(w, c + conns.GENERATION, generation)


@hot
def rejoin(w, c):
    """Compare from where the primary is now."""
    state = w[c + conns.FLAGS] & ~(conns.CF_DIVERGED | conns.CF_PASS | conns.CF_P_RST | conns.CF_S_RST | conns.CF_S_ACK)
    if state & conns.CF_P_SYN:
        state = state & ~conns.CF_P_SYN | conns.CF_SYN_MATCHED
    if state & conns.CF_SYN_MATCHED:
        put(w, c + conns.SECONDARY_ISN, w[c + conns.PRIMARY_ISN])
    if state & conns.CF_SYNCED and state & conns.CF_P_NEXT:
        put(w, c + conns.COMPARED, w[c + conns.PRIMARY_NEXT])
    if state & conns.CF_P_ACK:
        put(w, c + conns.SECONDARY_MAX_ACK, w[c + conns.PRIMARY_MAX_ACK])
        state |= conns.CF_S_ACK
    put(w, c + conns.SECONDARY_LIFE, w[c + conns.LIFE])
    put(w, c + conns.FLAGS, state)
    restart(w, c)  # what lies between was not read
