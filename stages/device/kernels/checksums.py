"""Checksums that a sender has left to the network card, made here."""

from __future__ import annotations

from ring.atomics import be32, byte, put_be16, put_byte
from ring.hot import hot
from stages.packets.kernels.checksum import fold

_SCTP_OFFSET = 8  # the one protocol whose checksum there is no Internet checksum, RFC 9260


@hot
def le16(u8, i):
    """Unsigned 16-bit little-endian at byte ``i``."""
    return byte(u8, i) | byte(u8, i + 1) << 8


@hot
def put_le16(u8, i, v):
    """Store the low 16 bits of ``v`` little-endian at byte ``i``."""
    put_byte(u8, i, v & 0xFF)
    put_byte(u8, i + 1, v >> 8 & 0xFF)


@hot
def ones_sum(u8, at, n):
    """One's complement 16-bit sum of ``n`` bytes, at most 128 KiB (RFC 1071)."""
    whole = n & ~3
    total = 0
    for i in range(at, at + whole, 4):
        total += be32(u8, i)
    for i in range(n - whole):
        total += byte(u8, at + whole + i) << (24 - 8 * i)
    total = (total & 0xFFFFFFFF) + (total >> 32)
    return fold((total & 0xFFFF) + (total >> 16))


@hot
def crc32c(u8, at, n):
    """CRC-32C of ``n`` bytes (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for i in range(at, at + n):
        crc ^= byte(u8, i)
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


@hot
def finish(u8, frame, length, start, offset):
    """Make the checksum of [start, length) of a frame; the field has the pseudo header's sum, or SCTP's zero."""
    field = frame + start + offset
    if offset == _SCTP_OFFSET:
        crc = crc32c(u8, frame + start, length - start)
        put_le16(u8, field, crc)
        put_le16(u8, field + 2, crc >> 16)
        return
    made = ones_sum(u8, frame + start, length - start) ^ 0xFFFF
    # Zero would say "no checksum" in UDP; both are the same number in one's complement.
    put_be16(u8, field, made if made != 0 else 0xFFFF)
