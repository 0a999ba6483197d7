"""The Internet checksum, updated for what changed (RFC 1624): the result is what summing the whole again would give.

A wrong checksum stays wrong, so damage on the way here is still seen by the receiver.  Of small packets that are read,
or made here, it is summed up (RFC 1071).
"""

from __future__ import annotations

from ring.atomics import be16, byte
from ring.hot import hot


@hot
def fold(total):
    """One's complement 16-bit sum of a sum of up to 65,536 words."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@hot
def delta32(old, new):
    """What the change of a 32-bit field adds to the one's complement sum; the field starts at an even offset."""
    gone = old ^ 0xFFFFFFFF
    return fold((gone >> 16) + (gone & 0xFFFF) + (new >> 16) + (new & 0xFFFF))


@hot
def swapped(delta):
    """The same delta for a field at an odd offset: its bytes have the other places in their words (RFC 1071, 2 B)."""
    return (delta & 0xFF) << 8 | delta >> 8


@hot
def updated(checksum, delta):
    """The checksum field after a change of the sum by ``delta`` (RFC 1624, equation 3)."""
    return fold((checksum ^ 0xFFFF) + delta) ^ 0xFFFF


@hot
def summed(u8, at, size):
    """One's complement sum of the ``size`` bytes at ``at``, not complemented; an odd end is padded with 0."""
    total = 0
    for i in range(0, size - 1, 2):
        total += be16(u8, at + i)
    if size & 1:
        total += byte(u8, at + size - 1) << 8
    return fold(total)
