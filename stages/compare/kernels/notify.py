"""The compare's other ear and its voice: messages on notify_dev."""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, byte, put_be32, put_byte
from ring.hot import hot
from ring.kernels.frames import index, record_size
from ring.kernels.ledger import blocked, count, readable, room, scalar
from stages.compare.kernels.arming import checkpoint_made, new_generation
from stages.compare.kernels.checkpoint_requests import answered
from stages.compare.kernels.events import write_event
from stages.compare.layout import counters, events, ports, reasons, scalars

_ASK = tuple(b"DO_CHECKPOINT")
_HELLO = tuple(b"COLO_COMPARE_GET_XEN_INIT")
_INIT = tuple(b"COLO_USERSPACE_PROXY_INIT")
_DONE = tuple(b"COLO_CHECKPOINT")


@hot
def message_is(u8, at, nbytes, text):
    """Whether a notify frame of ``nbytes`` at byte ``at`` is exactly ``text``."""
    if nbytes != len(text):
        return False
    for i in range(len(text)):
        if byte(u8, at + i) != text[i]:
            return False
    return True


@hot
def hear(u8, w, row, now):
    """Take the messages on notify_dev; how many."""
    r = w[layout.INPUTS + ports.NOTIFY_IN]
    heard = 0
    while (
        r != 0
        and heard < events.COUNT // 2
        and w[row + layout.ROW_HEADS + ports.NOTIFY_IN] < readable(w, row, ports.NOTIFY_IN)
    ):
        position = w[row + layout.ROW_HEADS + ports.NOTIFY_IN]
        at = index(w, r, position)
        nbytes = be32(u8, at)
        if message_is(u8, at + 4, nbytes, _DONE):
            checkpoint(u8, w, row, now)
        elif message_is(u8, at + 4, nbytes, _INIT):
            w[scalar(row, scalars.REPLY)] |= scalars.REPLY_INIT
        else:
            count(w, row, counters.NOTIFY_UNKNOWN, 1)
            e = write_event(u8, w, row, 0, reasons.MESSAGE, nbytes, now)
            w[e + events.PRIMARY_LEN] = nbytes  # its first bytes stand where a difference shows the primary's
            for i in range(min(nbytes, events.SHOWN)):
                put_byte(u8, (e + events.PRIMARY_BYTES) * 8 + i, byte(u8, at + 4 + i))
        w[row + layout.ROW_HEADS + ports.NOTIFY_IN] = position + record_size(u8, w, r, position)
        count(w, row, ports.NOTIFY_IN, 1)
        heard += 1
    return heard


@hot
def checkpoint(u8, w, row, now):
    """A checkpoint was made: answer to our request or not, everything held is settled."""
    w[scalar(row, scalars.FLUSHING)] = scalars.FLUSH_CHECKPOINT
    answered(u8, w, row, now)
    new_generation(w, row, 0)
    count(w, row, counters.CHECKPOINTS, 1)
    write_event(u8, w, row, 0, reasons.CHECKPOINT, 0, now)
    checkpoint_made(u8, w, row, now)


@hot
def _say(u8, w, row, text):
    out = w[layout.OUTPUTS + ports.NOTIFY_OUT]
    if room(w, row, ports.NOTIFY_OUT) < 4 + len(text):
        blocked(w, ports.NOTIFY_OUT)
        return False
    at = index(w, out, w[row + layout.ROW_TAILS + ports.NOTIFY_OUT])
    put_be32(u8, at, len(text))
    for i in range(len(text)):
        put_byte(u8, at + 4 + i, text[i])
    w[row + layout.ROW_TAILS + ports.NOTIFY_OUT] += 4 + len(text)
    count(w, row, layout.PORTS + ports.NOTIFY_OUT, 1)
    return True


@hot
def speak(u8, w, row):
    """Send what is owed to notify_dev."""
    owed = w[scalar(row, scalars.REPLY)]
    if w[layout.OUTPUTS + ports.NOTIFY_OUT] == 0:
        w[scalar(row, scalars.REPLY)] = 0
        return
    if owed & scalars.REPLY_INIT and _say(u8, w, row, _HELLO):
        w[scalar(row, scalars.REPLY)] &= ~scalars.REPLY_INIT
    if owed & scalars.REPLY_CHECKPOINT and _say(u8, w, row, _ASK):
        w[scalar(row, scalars.REPLY)] &= ~scalars.REPLY_CHECKPOINT
