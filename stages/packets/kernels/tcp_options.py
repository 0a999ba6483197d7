"""TCP options: those that carry numbers, SACK blocks (RFC 2018, D-SACK: RFC 2883) and timestamps (RFC 7323); erasing.

``tcp`` is the byte index of a TCP header of ``size`` bytes, both checked by the packet parser.
"""

from __future__ import annotations

from ring.atomics import be32, byte, put_be32, put_byte
from ring.hot import hot
from stages.packets.kernels.checksum import delta32, fold, swapped
from stages.packets.kernels.serial import add

_END, _NOP, _SACK, _TIMESTAMPS = 0, 1, 5, 8
_TS_LENGTH = 10


@hot
def option_size(u8, tcp, size, at):
    """Bytes of the option at offset ``at`` of the header, 0 where the list ends or cannot be read on."""
    kind = byte(u8, tcp + at)
    if kind == _END:
        return 0
    if kind == _NOP:
        return 1
    if at + 2 > size:
        return 0
    length = byte(u8, tcp + at + 1)
    return length if length >= 2 and at + length <= size else 0


@hot
def timestamps(u8, tcp, size):
    """Offset of TSval in the header (TSecr is 4 bytes on), or -1."""
    at = 20
    while at < size:
        step = option_size(u8, tcp, size, at)
        if step == 0:
            return -1
        if step == _TS_LENGTH and byte(u8, tcp + at) == _TIMESTAMPS:
            return at + 2
        at += step
    return -1


@hot
def move(u8, tcp, at, by):
    """Add ``by`` to the number at offset ``at`` of the header; what that adds to the checksum's sum."""
    old = be32(u8, tcp + at)
    new = add(old, by)
    put_be32(u8, tcp + at, new)
    delta = delta32(old, new)
    return swapped(delta) if at & 1 else delta


@hot
def move_timestamp(u8, tcp, size, field, by):
    """Add ``by`` to TSval (``field`` 0) or TSecr (4) if there are timestamps; what that adds to the sum."""
    at = timestamps(u8, tcp, size)
    return move(u8, tcp, at + field, by) if at >= 0 else 0


@hot
def move_sack(u8, tcp, size, by):
    """Add ``by`` to both edges of every SACK block; what that adds to the sum."""
    delta = 0
    at = 20
    while at < size:
        step = option_size(u8, tcp, size, at)
        if step == 0:
            break
        if byte(u8, tcp + at) == _SACK:
            for edge in range(at + 2, at + step - 3, 4):
                delta = fold(delta + move(u8, tcp, edge, by))
        at += step
    return delta


@hot
def erase(u8, tcp, size, kind):
    """Make every option of this kind NOPs: (how many were there, what that adds to the checksum's sum)."""
    found = delta = 0
    at = 20
    while at < size:
        step = option_size(u8, tcp, size, at)
        if step == 0:
            break
        if step > 1 and byte(u8, tcp + at) == kind:
            found += 1
            for i in range(at, at + step):
                more = delta32(byte(u8, tcp + i), _NOP)
                delta = fold(delta + (more if i & 1 else swapped(more)))
                put_byte(u8, tcp + i, _NOP)
        at += step
    return found, delta
