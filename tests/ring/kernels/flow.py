"""A numbered stream of frames for tests: frame n has a size and bytes that follow from n."""

from __future__ import annotations

from ring import layout
from ring.atomics import be64, byte, put_be32, put_byte
from ring.hot import hot, kernel
from ring.kernels.frames import claim, commit, index, poll, record_size, release


@hot
def length_of(n):
    """Bytes of frame ``n``: 8 to 135, in no simple order."""
    return 8 + (n * 2654435761 >> 7) % 128


@kernel
def pump(u8, w, now):
    """Write frames from number ``now`` on, one commit each, until there is no room (at most 1000); the next number."""
    n = now
    while n < now + 1000:
        length = length_of(n)
        at = claim(w, 0, 4 + length)
        if at < 0:
            break
        put_be32(u8, at, length)
        put_be32(u8, at + 4, n >> 32)
        put_be32(u8, at + 8, n & 0xFFFFFFFF)
        for i in range(8, length):
            put_byte(u8, at + 4 + i, (n + i) & 0xFF)
        commit(w, 0, 4 + length)
        n += 1
    return n


@kernel
def check(u8, w, now):
    """Read all frames that are there, the first being number ``now``; the next number, or -1 - n where n is wrong."""
    n = now
    left = poll(w, 0)
    while left > 0:
        at = index(w, 0, w[layout.HEAD])
        size = record_size(u8, w, 0, w[layout.HEAD])
        if size != 4 + length_of(n) or size > left or be64(u8, at + 4) != n:
            return -1 - n
        for i in range(8, size - 4):
            if byte(u8, at + 4 + i) != (n + i) & 0xFF:
                return -1 - n
        release(w, 0, size)
        left -= size
        n += 1
    return n
