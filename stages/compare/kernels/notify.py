"""The compare's other ear and its voice: messages on notify_dev."""

from __future__ import annotations

from ring import layout
from ring.atomics import be32, byte, put_be32, put_byte
from ring.hot import hot
from ring.kernels.frames import index, record_size
from ring.kernels.ledger import blocked, count, readable, room, scalar
from stages.compare.kernels.arming import new_generation, settled
from stages.compare.kernels.checkpoint_requests import answered
from stages.compare.kernels.events import write_event
from stages.compare.layout.words import (
    CHECKPOINTS,
    E_P_BYTES,
    E_P_LEN,
    EVENT_BYTES,
    EVENTS,
    FLUSH_CHECKPOINT,
    NOTIFY_IN,
    NOTIFY_OUT,
    NOTIFY_UNKNOWN,
    R_CHECKPOINT,
    R_MESSAGE,
    SC_FLUSHING,
    SC_REPLY,
)

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
    r = w[layout.INPUTS + NOTIFY_IN]
    heard = 0
    while r != 0 and heard < EVENTS // 2 and w[row + layout.ROW_HEADS + NOTIFY_IN] < readable(w, row, NOTIFY_IN):
        position = w[row + layout.ROW_HEADS + NOTIFY_IN]
        at = index(w, r, position)
        nbytes = be32(u8, at)
        if message_is(u8, at + 4, nbytes, _DONE):
            checkpoint(u8, w, row, now)
        elif message_is(u8, at + 4, nbytes, _INIT):
            w[scalar(row, SC_REPLY)] |= 2
        else:
            count(w, row, NOTIFY_UNKNOWN, 1)
            e = write_event(u8, w, row, 0, R_MESSAGE, nbytes, now)
            w[e + E_P_LEN] = nbytes  # its first bytes stand where a difference shows the primary's
            for i in range(min(nbytes, EVENT_BYTES)):
                put_byte(u8, (e + E_P_BYTES) * 8 + i, byte(u8, at + 4 + i))
        w[row + layout.ROW_HEADS + NOTIFY_IN] = position + record_size(u8, w, r, position)
        count(w, row, NOTIFY_IN, 1)
        heard += 1
    return heard


@hot
def checkpoint(u8, w, row, now):
    """A checkpoint was made: answer to our request or not, everything held is settled."""
    w[scalar(row, SC_FLUSHING)] = FLUSH_CHECKPOINT
    answered(u8, w, row, now)
    new_generation(w, row, 0)
    count(w, row, CHECKPOINTS, 1)
    write_event(u8, w, row, 0, R_CHECKPOINT, 0, now)
    settled(u8, w, row, now)


@hot
def _say(u8, w, row, text):
    out = w[layout.OUTPUTS + NOTIFY_OUT]
    if room(w, row, NOTIFY_OUT) < 4 + len(text):
        blocked(w, NOTIFY_OUT)
        return False
    at = index(w, out, w[row + layout.ROW_TAILS + NOTIFY_OUT])
    put_be32(u8, at, len(text))
    for i in range(len(text)):
        put_byte(u8, at + 4 + i, text[i])
    w[row + layout.ROW_TAILS + NOTIFY_OUT] += 4 + len(text)
    count(w, row, layout.PORTS + NOTIFY_OUT, 1)
    return True


@hot
def speak(u8, w, row):
    """Send what is owed to notify_dev."""
    owed = w[scalar(row, SC_REPLY)]
    if w[layout.OUTPUTS + NOTIFY_OUT] == 0:
        w[scalar(row, SC_REPLY)] = 0
        return
    if owed & 2 and _say(u8, w, row, _HELLO):
        w[scalar(row, SC_REPLY)] &= ~2
    if owed & 1 and _say(u8, w, row, _ASK):
        w[scalar(row, SC_REPLY)] &= ~1
