"""Frames to capture records, in a buffer that the shell writes with one system call.

The file is little-endian (`stages.capture.writer.header`); an enhanced packet block has epb_flags as its one option.
"""

from __future__ import annotations

from ring.atomics import copy, put_be32
from ring.hot import hot, kernel
from ring.kernels.frames import frame_at, index
from stages.capture.layout import recording

_BILLION = 1_000_000_000


@hot
def put_le32(u8, i, v):
    """Store the low 32 bits of ``v`` little-endian at byte ``i``."""
    put_be32(u8, i, (v & 0xFF) << 24 | (v & 0xFF00) << 8 | v >> 8 & 0xFF00 | v >> 24 & 0xFF)


@hot
def has_room(w, x):
    """Whether the buffer of the recorder at word ``x`` takes one more frame of any size."""
    return w[x + recording.USED] <= recording.BUFFER - recording.RESERVE


@hot
def record_frame(u8, w, x, at, length, direction):
    """Add the frame at byte ``at`` to the buffer, or its beginning; the caller has asked `has_room`."""
    kept = min(length, w[x + recording.LONGEST])
    out = int((x + recording.WORDS) * 8 + w[x + recording.USED])
    stamp = int(w[x + recording.STAMP])
    if w[x + recording.CLASSIC] == 1:
        put_le32(u8, out, stamp // _BILLION)
        put_le32(u8, out + 4, stamp % _BILLION)
        put_le32(u8, out + 8, kept)
        put_le32(u8, out + 12, length)
        copy(u8, out + 16, at, kept)
        w[x + recording.USED] += 16 + kept
        return
    padded = kept + 3 & ~3
    put_le32(u8, out, 6)
    put_le32(u8, out + 4, recording.BLOCK + padded)
    put_le32(u8, out + 8, 0)
    put_le32(u8, out + 12, stamp >> 32)
    put_le32(u8, out + 16, stamp)
    put_le32(u8, out + 20, kept)
    put_le32(u8, out + 24, length)
    put_be32(u8, out + 24 + padded, 0)  # the padding, before the frame's last bytes come
    copy(u8, out + 28, at, kept)
    tail = out + 28 + padded
    put_le32(u8, tail, 4 << 16 | 2)  # epb_flags, four bytes
    put_le32(u8, tail + 4, direction)
    put_le32(u8, tail + 8, 0)
    put_le32(u8, tail + 12, recording.BLOCK + padded)
    w[x + recording.USED] += recording.BLOCK + padded


@kernel
def record_span(u8, w, now):
    """Add the frames of ring SOURCE in [START, END) until the buffer is full; moves START; frames added."""
    x = w[recording.RECORDER]
    r = w[x + recording.SOURCE]
    frames = 0
    while w[x + recording.START] < w[x + recording.END] and has_room(w, x):
        at = index(w, r, w[x + recording.START])
        frame, length = frame_at(u8, w, r, at)
        record_frame(u8, w, x, frame, length, w[x + recording.DIRECTION])
        w[x + recording.START] += frame + length - at
        frames += 1
    return frames
