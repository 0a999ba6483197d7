"""One frame from a packet socket, made whole.

The VLAN tag that the system took out is put back, and a checksum that the sender left to the network card is made,
unless the frame keeps the virtio-net header that says so.  So is a frame that was put together: it is cut
(`segments`).

Linux: packet(7), include/uapi/linux/if_packet.h, include/uapi/linux/virtio_net.h (legacy: little-endian here).
"""

from __future__ import annotations

from errno import EINVAL

from ring import layout
from ring.atomics import byte, copy, put_be16, put_byte
from ring.hot import hot
from ring.kernels.ledger import count
from stages.device.kernels.checksums import finish, le16, put_le16
from stages.device.kernels.segments import plan
from stages.device.layout import counters, memory, message, options, segmentation
from stages.packets.kernels.system_calls import sys_recvmsg

_MSG_TRUNC = 0x20  # the result is the frame's true length
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6  # TP_STATUS_...
_MACS, _TAG = 12, 4  # a tag stands behind both addresses
_GSO_TYPE, _CSUM_START, _CSUM_OFFSET = 1, 6, 8  # bytes of the header


@hot
def put_tag(u8, frame, word):
    """Write the VLAN tag of ``word`` (TCI, above it TPID) behind the addresses of a frame."""
    put_be16(u8, frame + _MACS, word >> 16 & 0xFFFF)
    put_be16(u8, frame + _MACS + 2, word & 0xFFFF)


@hot
def insert_tag(u8, w, frame, length, word):
    """Put back the VLAN tag of ``word`` (TCI, above it TPID) into a frame of ``length`` bytes."""
    spare = int((w[options.MEMORY] + memory.FRAME) * 8)
    copy(u8, spare, frame + _MACS, length - _MACS)
    copy(u8, frame + _MACS + _TAG, spare, length - _MACS)
    put_tag(u8, frame, word)


@hot
def to_private(u8, w, frame, length, head, tag):
    """Bring a frame whose first ``head`` bytes lie at byte ``frame`` together at memory.WHOLE; (its byte, its bytes).

    ``tag``: the VLAN tag to be put back, or -1.
    """
    whole = int((w[options.MEMORY] + memory.WHOLE) * 8) + memory.SLACK
    copy(u8, whole, frame, min(head, length))
    if tag < 0:
        return whole, length
    for i in range(_MACS):
        put_byte(u8, whole - _TAG + i, byte(u8, whole + i))
    put_tag(u8, whole - _TAG, tag)
    return whole - _TAG, length + _TAG


@hot
def receive(u8, w, header, frame, space):
    """One recvmsg: the virtio-net header to byte ``header``, a frame's first ``space`` bytes to ``frame``; its result.

    Where the header does not stay, what is longer than the MTU comes behind its place in memory.WHOLE: it is cut from
    there, and of its payload only what is in the first part is copied twice.
    """
    m = int(w[options.MEMORY] + memory.MESSAGE)
    base = w[m + message.BASE]
    w[m + message.HEAD] = base + header
    w[m + message.BODY], w[m + message.BODY_LEN] = base + frame, space
    w[m + message.REST_LEN] = 0
    if w[options.GIVEN] == 0:
        w[m + message.REST] = base + (w[options.MEMORY] + memory.WHOLE) * 8 + memory.SLACK + space
        w[m + message.REST_LEN] = layout.MAX_FRAME - space
    w[m + message.CONTROL_LEN] = message.CONTROL_BYTES
    w[m + message.STATUS] = 0
    return sys_recvmsg(u8, w[options.FD], m * 8, _MSG_TRUNC)


@hot
def vlan_tag(w):
    """The tag that the system took out of the frame: TCI, above it TPID; -1: none."""
    m = int(w[options.MEMORY] + memory.MESSAGE)
    status, tag = int(w[m + message.STATUS]), int(w[m + message.TAG]) & 0xFFFFFFFF
    if status & _VLAN_VALID == 0:
        return -1
    return tag if status & _TPID_VALID else tag & 0xFFFF | 0x8100 << 16


@hot
def uncut(w, row, why):
    """A frame that cannot be cut is dropped, counted, and explained by the shell."""
    w[w[options.MEMORY] + memory.UNCUT] = why
    count(w, row, counters.DROPPED_UNCUT, 1)
    return message.DROPPED


@hot
def read_message(u8, w, row, at, most):
    """A frame to byte ``at``, at most ``most`` bytes: its length with the header that it keeps.

    Or TO_CUT (it waits in memory.WHOLE), DROPPED (and counted), -errno.
    """
    x, m, given = w[options.MEMORY], int(w[options.MEMORY] + memory.MESSAGE), int(w[options.GIVEN])
    header = at if given != 0 else (m + message.HEADER) * 8
    frame, space = at + given, most - given - _TAG
    head = space if given != 0 else min(space, int(w[options.LONGEST]))
    length = receive(u8, w, header, frame, head)
    if length == -EINVAL:
        return uncut(w, row, segmentation.UNSAID)
    if length < 0:
        return length
    length -= message.VNET_HEADER
    tag = vlan_tag(w) if length >= _MACS else -1
    if length > head + w[m + message.REST_LEN]:
        count(w, row, counters.DROPPED_UNREADABLE, 1)
        return message.DROPPED
    if length > w[options.LONGEST]:
        count(w, row, counters.RECEIVED_OVER_MTU, 1)
    if tag >= 0:
        count(w, row, counters.VLAN_TAGS_RESTORED, 1)
    partial = byte(u8, header) & 1 != 0  # VIRTIO_NET_HDR_F_NEEDS_CSUM
    start, offset = le16(u8, header + _CSUM_START), le16(u8, header + _CSUM_OFFSET)
    if tag >= 0 and partial:
        start += _TAG
        put_le16(u8, header + _CSUM_START, start)
    if given == 0 and byte(u8, header + _GSO_TYPE) != 0:
        whole, length = to_private(u8, w, frame, length, head, tag)
        why = plan(u8, w, x + memory.SEGMENTATION, header, whole, length, most)
        if why != 0:
            return uncut(w, row, why)
        count(w, row, counters.FRAMES_CUT, 1)
        return message.TO_CUT
    if length > w[options.LONGEST]:
        w[x + memory.OVERSIZE] = length
    if length > head:
        if length > space:
            count(w, row, counters.DROPPED_UNREADABLE, 1)
            return message.DROPPED
        rest = int((x + memory.WHOLE) * 8) + memory.SLACK + head
        copy(u8, frame + head, rest, length - head)
    if tag >= 0:
        insert_tag(u8, w, frame, length, tag)
        length += _TAG
    if partial and given == 0 and start + offset + 2 <= length:
        finish(u8, frame, length, start, offset)
        count(w, row, counters.CHECKSUMS_FINISHED, 1)
    return given + length
