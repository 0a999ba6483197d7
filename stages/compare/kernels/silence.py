"""A secondary that answers nothing, though its link is up: noticed by how long the primary's packets wait for it.

Counted is only time in which something of the primary waits and the secondary could answer, so a primary that says
nothing, a full outdev and a checkpoint that is being made (guests stand still) are no silence.  An answer is what can
be compared with something that the primary said: a secondary that asks for addresses, or looks up names, has answered
nothing.
"""

from __future__ import annotations

from ring import layout
from ring.hot import hot
from ring.kernels.ledger import readable, scalar, true_row
from stages.compare.kernels.arming import falls_silent
from stages.compare.kernels.checkpoint_requests import asked, goes_on_alone
from stages.compare.layout import arming, counters, options, ports, scalars
from stages.packets.kernels.table import find
from stages.packets.layout import rows, transports


@hot
def _grew(w, row, counter):
    return w[row + layout.ROW_COUNTERS + counter] != w[true_row(w) + layout.ROW_COUNTERS + counter]


@hot
def note_taken(w, row):
    """Note whether packets of the secondary that were taken in this burst answer the primary.  Before the deadlines.

    For at its deadline what nobody has answered is dropped under the same names.
    """
    w[options.ANSWERED] = 0
    if (
        _grew(w, row, counters.MATCHED)
        or _grew(w, row, counters.SECONDARY_ACKS)
        or _grew(w, row, counters.DROPPED_DIVERGED)
        or _grew(w, row, counters.DROPPED_BY_RULE)
    ):
        w[options.ANSWERED] = 1


@hot
def _answered_otherwise(w, row):
    """Whether it has answered otherwise than the primary: a difference, but not one of time."""
    return (
        _grew(w, row, counters.DIVERGED_PAYLOAD)
        or _grew(w, row, counters.DIVERGED_FLAGS)
        or _grew(w, row, counters.DIVERGED_ORDER)
    )


@hot
def _waits(w, row):
    """Whether something of the primary waits, and for the secondary alone."""
    if w[scalar(row, scalars.OLDEST)] == 0 or w[scalar(row, scalars.FLUSHING)] != 0:
        return False
    if w[scalar(row, scalars.WORK)] != 0:
        return False  # for room
    # Until a checkpoint that was asked for is made, or given up, guests may stand still; what waits for one that is to
    # be asked for has differed, so it was answered.
    return not asked(w, row) or goes_on_alone(w, row)


@hot
def silence_due(w, row, now):
    """Whether the secondary has answered nothing for too long, if the present wait counts."""
    since = w[scalar(row, scalars.WAITS_SINCE)]
    if since == 0 or w[options.SILENCE_NS] == 0:
        return False
    return w[scalar(row, scalars.SILENT_NS)] + now - since >= w[options.SILENCE_NS]


@hot
def watch_silence(u8, w, row, full, now):
    """At the end of a burst (``full``: of outdev) add the time that was waited; 1 where that is too long."""
    if w[scalar(row, scalars.ARMING)] != arming.IN_STEP:
        return 0
    since = w[scalar(row, scalars.WAITS_SINCE)]
    unread = w[row + layout.ROW_HEADS + ports.SECONDARY_IN] != readable(w, row, ports.SECONDARY_IN)
    if w[options.ANSWERED] != 0 or _answered_otherwise(w, row):
        w[scalar(row, scalars.HEARD)] = now
        w[scalar(row, scalars.SILENT_NS)] = 0
    elif since != 0 and full == 0 and not unread:
        w[scalar(row, scalars.SILENT_NS)] += max(now - max(since, w[options.RESUMED], w[options.WOKE]), 0)
        if w[options.SILENCE_NS] != 0 and w[scalar(row, scalars.SILENT_NS)] >= w[options.SILENCE_NS]:
            falls_silent(u8, w, row, now)
            return 1
    w[scalar(row, scalars.WAITS_SINCE)] = now if _waits(w, row) else 0
    return 0


@hot
def answers(w, row, s, transport):
    """Whether a packet (fields at ``s``) of a secondary that is silent answers something that the primary said since.

    Fragments have no ports to tell by: they do.
    """
    if transport == transports.FRAGMENT:
        return True
    c = find(w, w[options.TABLE], s)
    return c >= 0 and w[c + rows.SEEN] > w[scalar(row, scalars.SILENT_SINCE)]
