"""filter-rewriter: rows of connections, and which of them goes when room is wanted."""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.ledger import count, put
from stages.packets.kernels.table import insert, remove, remove_cost, victim
from stages.packets.layout import rows
from stages.rewriter.layout import conns, counters, scalars, tables


@hot
def change(w, i, value):
    """`put`, if it is a change: an entry of the undo log less for what is repeated."""
    if w[i] != value:
        put(w, i, value)


@hot
def current(w, row, c, field):
    """The connection's seq_offset or ts_offset: 0 if it was learnt before the last checkpoint."""
    return w[c + field] if w[c + conns.GENERATION] == w[row + layout.ROW_SCALARS + scalars.GENERATION] else 0


# --- spare rows -------------------------------------------------------------------------------------------------
@hot
def keep(w, c):
    """Take row ``c`` off the list of spare rows, if it is on it."""
    if w[c + conns.LISTED] == 0:
        return
    older, newer = w[c + conns.OLDER], w[c + conns.NEWER]
    put(w, older + conns.NEWER if older != 0 else tables.OLDEST_AT, newer)
    put(w, newer + conns.OLDER if newer != 0 else tables.NEWEST_AT, older)
    put(w, c + conns.LISTED, 0)


@hot
def spare(w, c):
    """Make row ``c`` the newest spare row."""
    keep(w, c)
    newest = w[tables.NEWEST_AT]
    put(w, newest + conns.NEWER if newest != 0 else tables.OLDEST_AT, c)
    put(w, tables.NEWEST_AT, c)
    change(w, c + conns.OLDER, newest)
    change(w, c + conns.NEWER, 0)
    put(w, c + conns.LISTED, 1)


@hot
def make_room(w, row):
    """Give up the oldest spare row, or where none is spare the one silent longest; False if that takes too much."""
    old = w[tables.OLDEST_AT]
    if old == 0:
        old = victim(w, tables.TABLE_AT)
    if old < 0:
        return False
    if remove_cost(w, tables.TABLE_AT, old) > tables.MOVE_PUTS:
        if w[old + conns.LISTED] == 1:
            spare(w, old)  # another one is the oldest now
        return False
    if w[old + rows.CLOSED] == 1:
        count(w, row, counters.ROWS_RECYCLED, 1)
    else:
        count(
            w,
            row,
            counters.CONNECTIONS_EVICTED if w[old + conns.STATE] == conns.ESTABLISHED else counters.HALF_OPEN_EVICTED,
            1,
        )
        count(w, row, counters.CONNECTIONS, -1)
    keep(w, old)
    remove(w, tables.TABLE_AT, old)
    return True


# --- a connection's beginning and end ---------------------------------------------------------------------------
@hot
def end_connection(w, row, c, why):
    """The connection is over; its row stays, so that what is sent again is still rewritten."""
    if w[c + rows.CLOSED] == 0:
        put(w, c + rows.CLOSED, 1)
        count(w, row, counters.CONNECTIONS, -1)
        count(w, row, why, 1)
        spare(w, c)


@hot
def new_row(w, row, now):
    """A row for the key in the scratch words, in state 0; -1 where none is to be had."""
    c = insert(w, tables.TABLE_AT, tables.SCRATCH_AT, now)
    if c < 0 and make_room(w, row):
        c = insert(w, tables.TABLE_AT, tables.SCRATCH_AT, now)
    return c


@hot
def new_alone(w, row, now):
    """A row for a connection that is never tracked nor counted as open, in state LEFT_ALONE; -1 where none is left."""
    c = new_row(w, row, now)
    if c >= 0:
        put(w, c + conns.LOCAL_ISN, -1)
        put(w, c + rows.CLOSED, 1)
        spare(w, c)
    return c


@hot
def new_connection(w, row, now):
    """A row for the key in the scratch words, in state SYN_SEEN; -1 where none is to be had."""
    c = new_row(w, row, now)
    if c < 0:
        return -1
    put(w, c + conns.STATE, conns.SYN_SEEN)
    put(w, c + conns.GENERATION, w[row + layout.ROW_SCALARS + scalars.GENERATION])
    spare(w, c)
    count(w, row, counters.CONNECTIONS_OPENED, 1)
    count(w, row, counters.CONNECTIONS, 1)
    return c


@hot
def leave_alone(w, row, c):
    """What the row knew is over, and nothing is learnt of what takes its place."""
    if w[c + rows.CLOSED] == 0:
        count(w, row, counters.CONNECTIONS_REPLACED, 1)
        count(w, row, counters.CONNECTIONS, -1)
    change(w, c + rows.CLOSED, 1)
    change(w, c + conns.STATE, conns.LEFT_ALONE)
    spare(w, c)


@hot
def renew(w, row, c):
    """The guest has a new connection on the addresses of row ``c``: what the row knew is over.

    False after a failover, when new connections are left alone.
    """
    if w[row + layout.ROW_SCALARS + scalars.ALONE] == 1:
        leave_alone(w, row, c)
        return False
    if w[c + rows.CLOSED] == 0:
        count(w, row, counters.CONNECTIONS_REPLACED, 1)
        count(w, row, counters.CONNECTIONS, -1)
    change(w, c + rows.CLOSED, 0)
    change(w, c + conns.FINS, 0)
    change(w, c + conns.GUEST_OPENED, 0)
    spare(w, c)
    count(w, row, counters.CONNECTIONS_OPENED, 1)
    count(w, row, counters.CONNECTIONS, 1)
    return True
