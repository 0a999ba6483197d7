"""Whether there is a secondary to compare with: the states and moves of `stages.compare.layout.arming`.

Out of step the primary serves alone: its packets leave uncompared, and what they say of sequence numbers is noted, so
that comparison starts at the right place when a checkpoint has made the secondary a copy of the primary.
"""

from __future__ import annotations

from ring import layout
from ring.atomics import load_acquire
from ring.hot import hot
from ring.kernels.ledger import count, put, scalar
from stages.compare.kernels.checkpoint_requests import ask, forget_request
from stages.compare.kernels.events import write_event
from stages.compare.layout import arming, checkpoints, counters, options, ports, reasons, scalars


@hot
def _move(u8, w, row, state, now):
    w[scalar(row, scalars.ARMING)] = state
    w[row + layout.ROW_COUNTERS + counters.ARMING_STATE] = state
    write_event(u8, w, row, 0, reasons.ARMING, state, now)
    w[scalar(row, scalars.SILENT_NS)] = 0
    w[scalar(row, scalars.WAITS_SINCE)] = 0
    if state == arming.IN_STEP:
        count(w, row, counters.TIMES_IN_STEP, 1)
        w[scalar(row, scalars.HEARD)] = now


@hot
def new_generation(w, row, pass_on):
    """Bring every row up to date at its next packet: compare it from here on, or (``pass_on``) from its next SYN on."""
    w[scalar(row, scalars.GENERATION)] = ((w[scalar(row, scalars.GENERATION)] >> 1) + 1) << 1 | pass_on


@hot
def offered(w):
    """Whether somebody is connected as the secondary who has not said anything yet: the link is not up for that."""
    r = w[layout.INPUTS + ports.SECONDARY_IN]
    return r != 0 and load_acquire(w, r + layout.P_OFFERED) == 1  # partner: the chardev's process


@hot
def awaited(w, row, now):
    """Whether the primary's packet has to wait for the first word of a secondary that has missed nothing.

    A secondary speaks after the primary, as a rule: without this the packet would leave uncompared, and the secondary
    would have missed something.  Who only looks never speaks: once, for compare_timeout at most, and no more after it.
    """
    if w[w[options.CHECKPOINTS] + checkpoints.MISSED] != 0 or not offered(w):
        w[options.OFFER_SINCE] = 0
        return False
    if w[options.OFFER_SINCE] == 0:
        w[options.OFFER_SINCE] = now
    return now - w[options.OFFER_SINCE] < w[options.TIMEOUT_NS]


@hot
def deserted(w, row):
    """Whether somebody of whom a checkpoint was made, and who has said nothing yet, has gone."""
    if w[scalar(row, scalars.ARMING)] != arming.LOST or w[w[options.CHECKPOINTS] + checkpoints.MISSED] != 0:
        return False
    r = w[layout.INPUTS + ports.SECONDARY_IN]
    return not offered(w) and load_acquire(w, r + layout.P_LINK) & 1 == 0  # partner: the chardev's process


@hot
def arrives(u8, w, row, now):
    """The link to the secondary came up, or one that was silent has answered."""
    state = w[scalar(row, scalars.ARMING)]
    away = state == arming.ABSENT or state == arming.LOST or state == arming.SILENT
    if away and w[w[options.CHECKPOINTS] + checkpoints.MISSED] == 0:
        if state != arming.ABSENT:  # a checkpoint was made while it was connected, and silent
            _move(u8, w, row, arming.ARMING, now)
        _move(u8, w, row, arming.IN_STEP, now)
        return
    if away:
        _move(u8, w, row, arming.ARMING, now)
    if w[options.LOCAL] != 0:
        # Nobody makes checkpoints: what begins from now on is compared, the rest passes.
        new_generation(w, row, 1)
        _move(u8, w, row, arming.IN_STEP, now)
    else:
        forget_request(w, row)  # one from before may be answered by a checkpoint without this secondary
        ask(u8, w, row, now)


@hot
def lost(u8, w, row, now):
    """The secondary is gone: what waits for it leaves, and the primary serves alone."""
    state = w[scalar(row, scalars.ARMING)]
    if state == arming.IN_STEP or state == arming.ARMING or state == arming.SILENT:
        _leave_step(u8, w, row, arming.LOST, now)


@hot
def falls_silent(u8, w, row, now):
    """The secondary has answered nothing for too long: as if it were lost, but its link is up.  No one is asked."""
    forget_request(w, row)  # a copy of the primary that answers nothing is worth no checkpoint
    count(w, row, counters.SILENCES, 1)
    w[scalar(row, scalars.SILENT_SINCE)] = now
    _leave_step(u8, w, row, arming.SILENT, now)


@hot
def _leave_step(u8, w, row, state, now):
    _move(u8, w, row, state, now)
    w[scalar(row, scalars.FLUSHING)] = scalars.FLUSH_LOST
    put(w, w[options.CHECKPOINTS] + checkpoints.MISSED, 1)


@hot
def checkpoint_made(u8, w, row, now):
    """A checkpoint was made: a secondary whose link is up is a copy of the primary now."""
    state = w[scalar(row, scalars.ARMING)]
    if state == arming.LOST and w[scalar(row, scalars.LINKS + ports.SECONDARY_IN)] & 1:
        _move(u8, w, row, arming.ARMING, now)
        state = arming.ARMING
    if state == arming.ARMING:
        _move(u8, w, row, arming.IN_STEP, now)
    elif state == arming.SILENT or (state != arming.IN_STEP and offered(w)):
        put(w, w[options.CHECKPOINTS] + checkpoints.MISSED, 0)  # a copy from now on: in step with its first word


@hot
def links(u8, w, row, now):
    """Look at the links of both inputs: a replica's packets were lost with its link.  Returns 1 where one changed."""
    changed = 0
    if deserted(w, row):
        put(w, w[options.CHECKPOINTS] + checkpoints.MISSED, 1)  # the one of which a checkpoint was made has gone
        changed = 1
    for side in range(2):
        r = w[layout.INPUTS + side]
        if r == 0:
            continue
        link_now = load_acquire(w, r + layout.P_LINK)  # partner: the chardev's process
        seen = w[scalar(row, scalars.LINKS + side)]
        if link_now == seen:
            continue
        w[scalar(row, scalars.LINKS + side)] = link_now
        changed = 1
        # Odd: connected.  An end that came since the last look means a loss; the first connect does not.
        if seen & 1 or link_now >> 1 > seen >> 1:
            count(w, row, counters.LINKS_LOST, 1)
            write_event(u8, w, row, 0, reasons.LINK, side, now)
            if side == ports.SECONDARY_IN:
                lost(u8, w, row, now)
            ask(u8, w, row, now)
        if side == ports.SECONDARY_IN and link_now & 1:
            arrives(u8, w, row, now)
    return changed


@hot
def failovers(u8, w, row, now):
    """Take an announced failover: on the primary's side it says that the secondary is gone.  Returns 1 for one."""
    if load_acquire(w, layout.CMD_FAILOVER) == w[scalar(row, scalars.FAILOVERS_SEEN)]:  # partner: the supervisor
        return 0
    w[scalar(row, scalars.FAILOVERS_SEEN)] = w[layout.CMD_FAILOVER]
    lost(u8, w, row, now)
    return 1
