"""What a frame that was put together is, cut again: slow, and from the inside out.

A layer's payload is cut first, then each part gets the layer's header anew.  Checksums are summed over the whole.
Linux, Documentation/networking/segmentation-offloads.rst; RFC 9293; RFC 768; RFC 791; RFC 8200.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.packets import checksum, pseudo

TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
_FIN_PSH, _URG, _CWR = 0x09, 0x20, 0x80


@dataclass(frozen=True)
class Cut:
    """What a virtio-net header says: ``start`` is where the transport header is, None where no checksum is asked."""

    kind: int
    size: int
    ecn: bool = False
    start: int | None = None


def segments(frame: bytes, cut: Cut) -> list[bytes]:
    """The frames of a frame that is well formed, as ``cut`` says."""
    return _ethernet(frame, 0, cut)


def _ethernet(data: bytes, at: int, cut: Cut) -> list[bytes]:
    size = 12
    while data[size : size + 2] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00"):
        size += 4
    kind = int.from_bytes(data[size : size + 2], "big")
    size += 2
    return [data[:size] + part for part in _network(kind, data[size:], at + size, cut)]


def _network(kind: int, data: bytes, at: int, cut: Cut) -> list[bytes]:
    if kind == 0x6558:
        return _ethernet(data, at, cut)
    return _ipv4(data, at, cut) if kind == 0x0800 else _ipv6(data, at, cut)


def _ipv4(data: bytes, at: int, cut: Cut) -> list[bytes]:
    size, total, ident = (data[0] & 15) * 4, int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:6], "big")
    made = []
    parts = _above(data[9], data[size : total or len(data)], at + size, (data[12:16], data[16:20]), cut)
    for n, part in enumerate(parts):
        own = struct.pack("!HH", size + len(part), (ident + n) % 65536)
        head = data[:2] + own + data[6:10] + b"\0\0" + data[12:size]
        made.append(head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + part)
    return made


def _ipv6(data: bytes, at: int, cut: Cut) -> list[bytes]:
    size, proto, dst = 40, data[6], data[24:40]
    end = 40 + int.from_bytes(data[4:6], "big") if data[4:6] != b"\0\0" else len(data)
    while proto in (0, 43, 60):
        extension = 8 + 8 * data[size + 1]
        if proto == 43 and data[size + 3]:
            dst = data[size + extension - 16 : size + extension]  # where it is going in the end
        proto, size = data[size], size + extension
    parts = _above(proto, data[size:end], at + size, (data[8:24], dst), cut)
    return [data[:4] + (size - 40 + len(part)).to_bytes(2, "big") + data[6:size] + part for part in parts]


def _above(proto: int, data: bytes, at: int, ends: tuple[bytes, bytes], cut: Cut) -> list[bytes]:
    if proto == (17 if cut.kind == UDP_L4 else 6) and cut.start in (None, at):
        return _tcp(data, ends, cut) if proto == 6 else _udp(data, ends, cut)
    if proto in (4, 41):
        return _network(0x0800 if proto == 4 else 0x86DD, data, at, cut)
    if proto == 47:
        size = 8 if data[0] & 0x20 else 4
        return [data[:size] + p for p in _network(int.from_bytes(data[2:4], "big"), data[size:], at + size, cut)]
    geneve = int.from_bytes(data[2:4], "big") == 6081
    size = 16 + (data[8] & 63) * 4 if geneve else 16
    kind = int.from_bytes(data[10:12], "big") if geneve else 0x6558
    parts = _network(kind, data[size:], at + size, cut)
    return [_summed_udp(data[:6] + b"\0\0" + data[8:size] + p, ends, data[6:8] != b"\0\0") for p in parts]


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


def _tcp(data: bytes, ends: tuple[bytes, bytes], cut: Cut) -> list[bytes]:
    size = (data[12] >> 4) * 4
    seq, flags, urgent = int.from_bytes(data[4:8], "big"), data[13], int.from_bytes(data[18:20], "big")
    parts, made = _parts(data[size:], cut.size), []
    for n, part in enumerate(parts):
        own, done = flags, n * cut.size
        if n < len(parts) - 1:
            own &= ~_FIN_PSH
        if n and cut.ecn:
            own &= ~_CWR
        points = max(urgent - done, 0) if flags & _URG else urgent
        if flags & _URG and not points:
            own &= ~_URG
        head = data[:4] + ((seq + done) % 2**32).to_bytes(4, "big") + data[8:13] + bytes([own]) + data[14:16]
        head += struct.pack("!HH", 0, points) + data[20:size]
        total = checksum(pseudo(*ends, 6, len(head + part)) + head + part) or 0xFFFF
        made.append(head[:16] + total.to_bytes(2, "big") + head[18:] + part)
    return made


def _udp(data: bytes, ends: tuple[bytes, bytes], cut: Cut) -> list[bytes]:
    checked = cut.start is not None or data[6:8] != b"\0\0"
    return [_summed_udp(data[:6] + b"\0\0" + part, ends, checked) for part in _parts(data[8:], cut.size)]


def _summed_udp(datagram: bytes, ends: tuple[bytes, bytes], checked: bool) -> bytes:
    datagram = datagram[:4] + len(datagram).to_bytes(2, "big") + datagram[6:]
    total = (checksum(pseudo(*ends, 17, len(datagram)) + datagram) or 0xFFFF) if checked else 0
    return datagram[:6] + total.to_bytes(2, "big") + datagram[8:]
