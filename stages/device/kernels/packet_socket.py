"""One frame from a packet socket, made whole.

The VLAN tag that the system took out is put back, and a checksum that the sender left to the network card is made,
unless the frame keeps the virtio-net header that says so.

Linux: packet(7), include/uapi/linux/if_packet.h, include/uapi/linux/virtio_net.h (legacy: little-endian here).
"""

from __future__ import annotations

from errno import EINVAL

from ring.atomics import be32, byte, copy, put_be16, put_byte
from ring.hot import hot
from ring.kernels.ledger import count
from stages.device.layout import counters, memory, message, options
from stages.packets.kernels.checksum import fold
from stages.packets.kernels.system_calls import sys_recvmsg

_MSG_TRUNC = 0x20  # the result is the frame's true length
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6  # TP_STATUS_...
_MACS, _TAG = 12, 4  # a tag stands behind both addresses
_CSUM_START, _CSUM_OFFSET = 6, 8  # bytes of the header
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


@hot
def insert_tag(u8, w, frame, length, word):
    """Put back the VLAN tag of ``word`` (TCI, above it TPID) into a frame of ``length`` bytes."""
    spare = int((w[options.MEMORY] + memory.FRAME) * 8)
    copy(u8, spare, frame + _MACS, length - _MACS)
    copy(u8, frame + _MACS + _TAG, spare, length - _MACS)
    put_be16(u8, frame + _MACS, word >> 16 & 0xFFFF)
    put_be16(u8, frame + _MACS + 2, word & 0xFFFF)


@hot
def read_message(u8, w, row, at, most):
    """A frame to byte ``at``, at most ``most`` bytes: its length with the header that it keeps, DROPPED, or -errno."""
    x, m, given = w[options.MEMORY], int(w[options.MEMORY] + memory.MESSAGE), int(w[options.GIVEN])
    header = at if given != 0 else (m + message.HEADER) * 8
    frame, space = at + given, most - given - _TAG
    w[m + message.HEAD] = w[m + message.BASE] + header
    w[m + message.BODY] = w[m + message.BASE] + frame
    w[m + message.BODY_LEN] = space
    w[m + message.CONTROL_LEN] = message.CONTROL_BYTES
    w[m + message.STATUS] = 0
    length = sys_recvmsg(u8, w[options.FD], m * 8, _MSG_TRUNC)
    if length == -EINVAL or length > space + message.VNET_HEADER:  # EINVAL: no header can say how it is to be cut
        return message.DROPPED
    if length < 0:
        return length
    length -= message.VNET_HEADER
    if length > w[options.LONGEST]:
        w[x + memory.OVERSIZE] = length
        count(w, row, counters.RECEIVED_OVER_MTU, 1)
    partial = byte(u8, header) & 1 != 0  # VIRTIO_NET_HDR_F_NEEDS_CSUM
    start, offset = le16(u8, header + _CSUM_START), le16(u8, header + _CSUM_OFFSET)
    status = int(w[m + message.STATUS])
    if status & _VLAN_VALID and length >= _MACS:
        tag = int(w[m + message.TAG]) & 0xFFFFFFFF
        insert_tag(u8, w, frame, length, tag if status & _TPID_VALID else tag & 0xFFFF | 0x8100 << 16)
        count(w, row, counters.VLAN_TAGS_RESTORED, 1)
        length += _TAG
        start += _TAG
        if partial:
            put_le16(u8, header + _CSUM_START, start)
    if partial and given == 0 and start + offset + 2 <= length:
        finish(u8, frame, length, start, offset)
        count(w, row, counters.CHECKSUMS_FINISHED, 1)
    return given + length
