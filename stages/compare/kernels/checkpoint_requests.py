"""When a checkpoint is asked for: one request in flight, a least interval between two, a fixed rhythm in a storm.

Differences that come as often as checkpoints can be made say that the replicas do not run in lock step at all.  From
then on a difference only waits, as in checkpointing without a compare, for the next checkpoint of a fixed rhythm; when
none was found for a whole window the storm is over.
"""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.ledger import count, put, readable, scalar
from stages.compare.kernels.events import write_event
from stages.compare.layout.words import (
    ARMING,
    CHECKPOINTS_ASKED,
    CHECKPOINTS_ASKED_AGAIN,
    CHECKPOINTS_PERIODIC,
    IN_STEP,
    NOTIFY_OUT,
    O_INTERVAL_NS,
    O_LOCAL,
    O_STATE,
    O_STORM_LIMIT,
    O_STORM_NS,
    O_STORM_WINDOW_NS,
    O_TIMEOUT_NS,
    R_STORM,
    SC_ARMING,
    SC_ASKED,
    SC_REPLY,
    SC_WANTED,
    ST_ASKED_AT,
    ST_DIVERGED,
    ST_SETTLED,
    ST_STORM,
    ST_STORM_COUNT,
    ST_STORM_WINDOW,
    STORMS,
)


@hot
def asked(w, row):
    """Whether a checkpoint was asked for, or will be as soon as the interval is over."""
    return w[scalar(row, SC_ASKED)] != 0 or w[scalar(row, SC_WANTED)] != 0


@hot
def ask(u8, w, row, now):
    """Ask for a checkpoint, unless that was done: one divergence or a thousand, one request."""
    if w[O_LOCAL] != 0:
        count(w, row, CHECKPOINTS_ASKED, 1)
        return
    if asked(w, row):
        return
    state = w[O_STATE]
    if w[state + ST_SETTLED] != 0 and now - w[state + ST_SETTLED] < w[O_INTERVAL_NS]:
        w[scalar(row, SC_WANTED)] = w[state + ST_SETTLED] + w[O_INTERVAL_NS]
        return
    _request(u8, w, row, now)


@hot
def _request(u8, w, row, now):
    w[scalar(row, SC_WANTED)] = 0
    w[scalar(row, SC_ASKED)] = now
    count(w, row, CHECKPOINTS_ASKED, 1)
    if w[layout.OUTPUTS + NOTIFY_OUT] != 0:
        w[scalar(row, SC_REPLY)] |= 1
    state = w[O_STATE]
    for side in range(2):
        put(w, state + ST_ASKED_AT + side, readable(w, row, side))
    if w[state + ST_STORM] != 0 and w[state + ST_STORM] != now:  # not the one that began the storm
        count(w, row, CHECKPOINTS_PERIODIC, 1)


@hot
def count_difference(u8, w, row, now):
    """A difference that asks for a checkpoint: too many within a window are a storm, which lasts while there are any.

    Where a request is under way already, it will settle this one as well.
    """
    state = w[O_STATE]
    if w[state + ST_STORM] != 0:
        put(w, state + ST_DIVERGED, now)
        return
    if w[O_LOCAL] != 0 or w[O_STORM_LIMIT] == 0 or asked(w, row):
        return
    if now - w[state + ST_STORM_WINDOW] >= w[O_STORM_WINDOW_NS]:
        put(w, state + ST_STORM_WINDOW, now)
        put(w, state + ST_STORM_COUNT, 0)
    put(w, state + ST_STORM_COUNT, w[state + ST_STORM_COUNT] + 1)
    if w[state + ST_STORM_COUNT] >= w[O_STORM_LIMIT]:
        put(w, state + ST_STORM, now)
        count(w, row, STORMS, 1)
        write_event(u8, w, row, 0, R_STORM, w[state + ST_STORM_COUNT], now)


@hot
def forget_request(w, row):
    """The request in flight, if any, is void."""
    w[scalar(row, SC_ASKED)] = 0
    w[scalar(row, SC_WANTED)] = 0
    w[scalar(row, SC_REPLY)] &= ~1


@hot
def answered(u8, w, row, now):
    """A checkpoint was made: nothing is asked for any more, but for the next one of a storm."""
    forget_request(w, row)
    state = w[O_STATE]
    put(w, state + ST_SETTLED, now)
    if w[state + ST_STORM] == 0:
        return
    if now - max(w[state + ST_DIVERGED], w[state + ST_STORM]) >= w[O_STORM_WINDOW_NS]:
        put(w, state + ST_STORM, 0)
        put(w, state + ST_STORM_COUNT, 0)
        write_event(u8, w, row, 0, R_STORM, 0, now)
    else:
        w[scalar(row, SC_WANTED)] = now + w[O_STORM_NS]


@hot
def request_due(w, row, now):
    """Whether the time of a request has come: one that had to wait, or one that nobody has answered."""
    wanted, since = w[scalar(row, SC_WANTED)], w[scalar(row, SC_ASKED)]
    if wanted != 0 and now >= wanted:
        return True
    if since == 0 or now - since < w[O_TIMEOUT_NS]:
        return False
    # Without a secondary there is no copy to make until it is there.
    return w[scalar(row, SC_ARMING)] == ARMING or w[scalar(row, SC_ARMING)] == IN_STEP


@hot
def repeat_request(u8, w, row, now):
    """Send the request whose time has come; returns 1 for one."""
    if not request_due(w, row, now):
        return 0
    if w[scalar(row, SC_ASKED)] == 0:
        _request(u8, w, row, now)
        return 1
    w[scalar(row, SC_ASKED)] = now
    w[scalar(row, SC_REPLY)] |= 1
    count(w, row, CHECKPOINTS_ASKED_AGAIN, 1)
    return 1
