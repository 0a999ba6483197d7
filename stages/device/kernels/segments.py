"""A frame that was put together is cut again, as a network card or the system behind a TAP device would do it.

Linux: include/uapi/linux/virtio_net.h, Documentation/networking/segmentation-offloads.rst; virtio 1.2, 5.1.6; TCP: RFC
9293; ECN: RFC 3168.  Each segment has the frame's headers with its own lengths, number in the stream, IPv4
identification (one more each) and checksums.  UDP's old fragmentation (type 3) has had no maker since Linux 4.14.
"""

from __future__ import annotations

from ring.atomics import be16, be32, byte, copy, put_be16, put_be32, put_byte
from ring.hot import hot
from stages.device.kernels.checksums import finish, le16, ones_sum
from stages.device.kernels.layers import find_transport
from stages.device.layout import segmentation
from stages.packets.kernels.checksum import delta32, fold, updated
from stages.packets.layout import tcp

_TYPE, _SIZE, _START, _OFFSET = 1, 4, 6, 8  # bytes of the virtio-net header
_NEEDS_CSUM = 1
_TCPV4, _TCPV6, _UDP_L4, _ECN = 1, 4, 5, 0x80  # VIRTIO_NET_HDR_GSO_..
_TCP, _UDP = 6, 17
_TCP_SUM, _UDP_SUM = 16, 6  # where the checksum stands in a header


@hot
def pseudo_sum(u8, at, layer, protocol):
    """Sum of the pseudo header of the IP header at byte ``at``, without the length (RFC 9293, RFC 8200)."""
    addresses = ones_sum(u8, at + 12, 8) if layer == segmentation.IPV4 else ones_sum(u8, at + 8, 32)
    return fold(addresses + protocol)


@hot
def plan(u8, w, c, header, frame, length, most):
    """Note at ``c`` how the frame at byte ``frame`` is cut; 0, or why it cannot be, see `segmentation.WHY`.

    ``header``: byte index of its virtio-net header; ``most``: bytes that a segment may have.
    """
    w[c + segmentation.NEXT] = w[c + segmentation.SEGMENTS] = 0
    kind, size = byte(u8, header + _TYPE), le16(u8, header + _SIZE)
    ecn, kind = kind & _ECN, kind & ~_ECN
    if kind != _TCPV4 and kind != _TCPV6 and kind != _UDP_L4:
        return segmentation.UNKNOWN
    protocol = _UDP if kind == _UDP_L4 else _TCP
    field = _UDP_SUM if kind == _UDP_L4 else _TCP_SUM
    partial = byte(u8, header) & _NEEDS_CSUM != 0
    if partial and le16(u8, header + _OFFSET) != field:
        return segmentation.NO_MATCH
    start = le16(u8, header + _START) if partial else -1
    at, end = find_transport(u8, w, c, frame, length, protocol, start)
    if at < 0 or end - at < field + 2:
        return segmentation.NO_MATCH
    innermost = w[c + segmentation.LAYERS + w[c + segmentation.LAYERS_N] - 1]
    layer = innermost & 3
    if (kind == _TCPV4 and layer != segmentation.IPV4) or (kind == _TCPV6 and layer != segmentation.IPV6):
        return segmentation.NO_MATCH
    headers = at + 8
    if protocol == _TCP:
        headers = at + (byte(u8, frame + at + 12) >> 4) * 4
        if headers < at + 20 or headers > end or byte(u8, frame + at + 13) & (tcp.SYN | tcp.RST) != 0:
            return segmentation.NO_MATCH
    elif be16(u8, frame + at + 4) != end - at and be16(u8, frame + at + 4) != 0:
        return segmentation.NO_MATCH
    data = end - headers
    if size == 0 or headers + min(size, data) > most:
        return segmentation.NO_SIZE
    stored = be16(u8, frame + at + field)
    w[c + segmentation.CHECKED] = partial or protocol == _TCP or stored != 0
    if partial:
        w[c + segmentation.SUM] = fold(stored + delta32(end - at, 0))
    else:
        w[c + segmentation.SUM] = pseudo_sum(u8, frame + (innermost >> 2), layer, protocol)
    w[c + segmentation.AT] = frame
    w[c + segmentation.HEADERS], w[c + segmentation.DATA], w[c + segmentation.SIZE] = headers, data, size
    w[c + segmentation.PROTOCOL], w[c + segmentation.TRANSPORT] = protocol, at
    w[c + segmentation.ECN] = ecn != 0
    w[c + segmentation.SEGMENTS] = max((data + size - 1) // size, 1)
    return 0


@hot
def waiting(w, c):
    """Segments of the frame that are still to be made."""
    return w[c + segmentation.SEGMENTS] - w[c + segmentation.NEXT]


@hot
def payload(w, c):
    """Bytes of payload of the next segment."""
    size = int(w[c + segmentation.SIZE])
    return min(size, w[c + segmentation.DATA] - w[c + segmentation.NEXT] * size)


@hot
def next_length(w, c):
    """Bytes of the next segment."""
    return w[c + segmentation.HEADERS] + payload(w, c)


@hot
def number_tcp(u8, w, c, header, done):
    """The TCP header at byte ``header`` is of a segment with ``done`` bytes of payload before it."""
    put_be32(u8, header + 4, be32(u8, header + 4) + done & 0xFFFFFFFF)
    flags = byte(u8, header + 13)
    if waiting(w, c) > 1:
        flags &= ~(tcp.FIN | tcp.PSH)
    if done > 0 and w[c + segmentation.ECN] != 0:
        flags &= ~tcp.CWR
    if flags & tcp.URG != 0:  # the pointer counts from the segment's own number
        urgent = be16(u8, header + 18)
        if urgent <= done:
            flags &= ~tcp.URG
        put_be16(u8, header + 18, max(urgent - done, 0))
    put_byte(u8, header + 13, flags)


@hot
def fit_layer(u8, w, c, to, length, k):
    """Give layer ``k`` of the segment at byte ``to`` the length that it has; what is inside is done."""
    at, layer = w[c + segmentation.LAYERS + k] >> 2, w[c + segmentation.LAYERS + k] & 3
    header, size = to + at, length - at
    if layer == segmentation.IPV4:
        old = be32(u8, header + 2)
        new = size << 16 | (old + w[c + segmentation.NEXT] & 0xFFFF)
        put_be32(u8, header + 2, new)
        put_be16(u8, header + 10, updated(be16(u8, header + 10), delta32(old, new)))
    elif layer == segmentation.IPV6:
        put_be16(u8, header + 4, size - 40)
    else:
        put_be16(u8, header + 4, size)
        if be16(u8, header + _UDP_SUM) != 0:
            around = w[c + segmentation.LAYERS + k - 1]
            put_be16(u8, header + _UDP_SUM, fold(pseudo_sum(u8, to + (around >> 2), around & 3, _UDP) + size))
            finish(u8, to, length, at, _UDP_SUM)


@hot
def write_segment(u8, w, c, to):
    """Write the next segment to byte ``to``, for which there is room; its bytes."""
    frame, headers, at = w[c + segmentation.AT], w[c + segmentation.HEADERS], w[c + segmentation.TRANSPORT]
    done = int(w[c + segmentation.NEXT]) * w[c + segmentation.SIZE]
    size = payload(w, c)
    length = headers + size
    copy(u8, to, frame, headers)
    copy(u8, to + headers, frame + headers + done, size)
    field = _TCP_SUM
    if w[c + segmentation.PROTOCOL] == _TCP:
        number_tcp(u8, w, c, to + at, done)
    else:
        field = _UDP_SUM
        put_be16(u8, to + at + 4, length - at)
    if w[c + segmentation.CHECKED] != 0:
        put_be16(u8, to + at + field, fold(w[c + segmentation.SUM] + length - at))
        finish(u8, to, length, at, field)
    for k in range(w[c + segmentation.LAYERS_N] - 1, -1, -1):
        fit_layer(u8, w, c, to, length, k)
    w[c + segmentation.NEXT] += 1
    return length
