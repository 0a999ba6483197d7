"""When a checkpoint is asked for: one request in flight, a least interval between two, a fixed rhythm in a storm.

Differences that come as often as checkpoints can be made say that the replicas do not run in lock step at all.  From
then on a difference only waits, as in checkpointing without a compare, for the next checkpoint of a fixed rhythm; when
none was found for a whole window the storm is over.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot
from ring.kernels.ledger import count, put, readable, scalar
from stages.compare.kernels.events import write_event
from stages.compare.layout import arming, checkpoints, counters, options, ports, reasons, scalars


@hot
def asked(w, row):
    """Whether a checkpoint was asked for, or will be as soon as the interval is over."""
    return w[scalar(row, scalars.ASKED)] != 0 or w[scalar(row, scalars.WANTED)] != 0


@hot
def joined(w):
    """Whether somebody is connected at notify_dev: our first request makes who is only offered the peer."""
    r = w[layout.OUTPUTS + ports.NOTIFY_OUT]
    return r != 0 and load_acquire(w, r + layout.C_LINK) & 1 == 1  # partner: the chardev's process


@hot
def goes_on_alone(w, row):
    """Whether connections that differ go on uncompared: nobody makes checkpoints, or one was waited for too long."""
    return w[options.LOCAL] != 0 or w[scalar(row, scalars.GIVEN_UP)] != 0


@hot
def ask(u8, w, row, now):
    """Ask for a checkpoint, unless that was done: one divergence or a thousand, one request."""
    if w[options.LOCAL] != 0:
        count(w, row, counters.CHECKPOINTS_ASKED, 1)
        return
    if asked(w, row):
        return
    state = w[options.CHECKPOINTS]
    if w[state + checkpoints.MADE_AT] != 0 and now - w[state + checkpoints.MADE_AT] < w[options.INTERVAL_NS]:
        w[scalar(row, scalars.WANTED)] = w[state + checkpoints.MADE_AT] + w[options.INTERVAL_NS]
        return
    _request(u8, w, row, now)


@hot
def _request(u8, w, row, now):
    w[scalar(row, scalars.WANTED)] = 0
    w[scalar(row, scalars.ASKED)] = now
    count(w, row, counters.CHECKPOINTS_ASKED, 1)
    if w[scalar(row, scalars.AWAITED)] == 0:
        w[scalar(row, scalars.AWAITED)] = now
        if not joined(w):
            write_event(u8, w, row, 0, reasons.UNJOINED, 0, now)
    if w[layout.OUTPUTS + ports.NOTIFY_OUT] != 0:
        w[scalar(row, scalars.REPLY)] |= scalars.REPLY_CHECKPOINT
    state = w[options.CHECKPOINTS]
    for side in range(2):
        put(w, state + checkpoints.ASKED_AT + side, readable(w, row, side))
    if w[state + checkpoints.STORM] != 0 and w[state + checkpoints.STORM] != now:  # not the one that began the storm
        count(w, row, counters.CHECKPOINTS_PERIODIC, 1)


@hot
def count_difference(u8, w, row, now):
    """A difference that asks for a checkpoint: too many within a window are a storm, which lasts while there are any.

    Where a request is under way already, it will settle this one as well.
    """
    state = w[options.CHECKPOINTS]
    if w[state + checkpoints.STORM] != 0:
        put(w, state + checkpoints.DIVERGED, now)
        return
    if w[options.LOCAL] != 0 or w[options.STORM_LIMIT] == 0 or asked(w, row):
        return
    if now - w[state + checkpoints.STORM_WINDOW] >= w[options.STORM_WINDOW_NS]:
        put(w, state + checkpoints.STORM_WINDOW, now)
        put(w, state + checkpoints.STORM_COUNT, 0)
    put(w, state + checkpoints.STORM_COUNT, w[state + checkpoints.STORM_COUNT] + 1)
    if w[state + checkpoints.STORM_COUNT] >= w[options.STORM_LIMIT]:
        put(w, state + checkpoints.STORM, now)
        count(w, row, counters.STORMS, 1)
        write_event(u8, w, row, 0, reasons.STORM, w[state + checkpoints.STORM_COUNT], now)


@hot
def forget_request(w, row):
    """Forget the request in flight, if any: no answer to it is waited for."""
    w[scalar(row, scalars.ASKED)] = 0
    w[scalar(row, scalars.WANTED)] = 0
    w[scalar(row, scalars.AWAITED)] = 0
    w[scalar(row, scalars.GIVEN_UP)] = 0
    w[scalar(row, scalars.REPLY)] &= ~scalars.REPLY_CHECKPOINT


@hot
def answered(u8, w, row, now):
    """A checkpoint was made: nothing is asked for any more, but for the next one of a storm."""
    forget_request(w, row)
    state = w[options.CHECKPOINTS]
    put(w, state + checkpoints.MADE_AT, now)
    if w[state + checkpoints.STORM] == 0:
        return
    if now - max(w[state + checkpoints.DIVERGED], w[state + checkpoints.STORM]) >= w[options.STORM_WINDOW_NS]:
        put(w, state + checkpoints.STORM, 0)
        put(w, state + checkpoints.STORM_COUNT, 0)
        write_event(u8, w, row, 0, reasons.STORM, 0, now)
    else:
        w[scalar(row, scalars.WANTED)] = now + w[options.STORM_NS]


@hot
def request_due(w, row, now):
    """Whether the time of a request has come: one that had to wait, or one that nobody has answered."""
    wanted, since = w[scalar(row, scalars.WANTED)], w[scalar(row, scalars.ASKED)]
    if wanted != 0 and now >= wanted:
        return True
    if since == 0 or now - since < w[options.TIMEOUT_NS] or not joined(w):  # unjoined: the first one lies in the ring
        return False
    # Without a secondary there is no copy to make until it is there.
    return w[scalar(row, scalars.ARMING)] == arming.ARMING or w[scalar(row, scalars.ARMING)] == arming.IN_STEP


@hot
def repeat_request(u8, w, row, now):
    """Send the request whose time has come; returns 1 for one."""
    if not request_due(w, row, now):
        return 0
    if w[scalar(row, scalars.ASKED)] == 0:
        _request(u8, w, row, now)
        return 1
    w[scalar(row, scalars.ASKED)] = now
    w[scalar(row, scalars.REPLY)] |= scalars.REPLY_CHECKPOINT
    count(w, row, counters.CHECKPOINTS_ASKED_AGAIN, 1)
    return 1


# --- nobody answers -----------------------------------------------------------------------------------------------
@hot
def joins(w, row):
    """Whether somebody has joined at notify_dev, or has left it, since that was last noted."""
    return joined(w) != (w[scalar(row, scalars.ALONE)] == 0)


@hot
def note_joined(w, row, now):
    """Note since when nobody is joined at notify_dev.  Returns 1 where that has changed.

    Whoever joins gets the request that lies in the ring; one that somebody took who has gone is repeated at once.
    """
    if not joins(w, row):
        return 0
    w[scalar(row, scalars.ALONE)] = 0 if joined(w) else now
    r = w[layout.OUTPUTS + ports.NOTIFY_OUT]
    waits = r != 0 and load_acquire(w, r + layout.HEAD) != w[row + layout.ROW_TAILS + ports.NOTIFY_OUT]
    if waits and w[scalar(row, scalars.ASKED)] != 0:
        w[scalar(row, scalars.ASKED)] = now
    return 1


@hot
def _gives_up_at(w, row):
    """When the checkpoint that is awaited is given up (monotonic ns), 0: never."""
    since, how = w[scalar(row, scalars.AWAITED)], w[options.OVERDUE]
    # Out of step nothing waits for a checkpoint: all of the primary's packets leave.
    if since == 0 or w[scalar(row, scalars.GIVEN_UP)] != 0 or w[scalar(row, scalars.ARMING)] != arming.IN_STEP:
        return 0
    if how == options.OVERDUE_UNJOINED:
        alone = w[scalar(row, scalars.ALONE)]
        return 0 if alone == 0 else max(since, alone) + w[options.CHECKPOINT_NS]
    return since + w[options.CHECKPOINT_NS] if how == options.OVERDUE_PASS else 0


@hot
def plan_giving_up(w, row):
    """Note when the checkpoint is given up, if nothing comes between: `giving_up_due`, and the shell's deadline."""
    w[scalar(row, scalars.GIVES_UP_AT)] = _gives_up_at(w, row)


@hot
def giving_up_due(w, row, now):
    """Whether a checkpoint has been waited for too long."""
    at = w[scalar(row, scalars.GIVES_UP_AT)]
    return at != 0 and now >= at


@hot
def give_up(u8, w, row, now):
    """Go on as with checkpoint = "local" where a checkpoint has been waited for too long.  Returns 1 where it has.

    The request stays: whoever joins is asked again, and with the checkpoint everything is compared as before.
    """
    at = _gives_up_at(w, row)
    if at == 0 or now < at:
        return 0
    w[scalar(row, scalars.GIVEN_UP)] = now
    count(w, row, counters.CHECKPOINTS_GIVEN_UP, 1)
    write_event(u8, w, row, 0, reasons.GIVEN_UP, now - w[scalar(row, scalars.AWAITED)], now)
    return 1
