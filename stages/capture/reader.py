"""Capture files read: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).

`stages.capture.writer` writes them.

Times are whole nanoseconds since 1970.  Python's libraries for these formats (dpkt, python-pcapng) give times as
floats, which at today's date are 240 ns coarse; scapy's licence (GPL) does not fit this project.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from ring import layout
from stages.capture.format import (
    BILLION,
    BYTE_ORDER,
    COMMENT,
    END,
    EPB,
    ETHERNET,
    FAR,
    FLAGS,
    IDB,
    IF_NAME,
    IF_TSOFFSET,
    IF_TSRESOL,
    ORDERS,
    PB,
    PCAP_NS,
    PCAP_US,
    SHB,
    SPB,
    Order,
)
from stages.capture.layout.recording import INBOUND, OUTBOUND, UNKNOWN

__all__ = [
    "INBOUND",
    "OUTBOUND",
    "UNKNOWN",
    "CaptureError",
    "Packet",
    "Span",
    "comments",
    "comments_in",
    "first_timestamp",
    "load",
    "packets",
    "read",
    "walk",
    "whole_length",
]


class CaptureError(ValueError):
    """A capture that cannot be used: ``path``, ``offset`` (the byte where it goes wrong) and what was ``found``."""

    def __init__(self, path: str | os.PathLike[str], offset: int, found: str) -> None:
        super().__init__(f"{os.fspath(path)}, byte {offset:,}: {found}")
        self.path, self.offset, self.found = os.fspath(path), offset, found


class Packet(NamedTuple):
    """One frame of a capture; ``direction`` is UNKNOWN, INBOUND or OUTBOUND."""

    ns: int
    data: bytes
    direction: int
    interface: str
    comment: str
    missing: int = 0  # bytes of the frame that the file does not hold


class Span(NamedTuple):
    """Where one frame lies in the file's bytes."""

    ns: int
    start: int
    length: int
    direction: int
    interface: str
    options: tuple[int, int]  # the bytes of its options, from and to
    end: int  # of its block: a file cut here is whole
    missing: int = 0


class _Interface(NamedTuple):
    name: str
    units: int  # ticks in a second
    offset_ns: int
    snaplen: int


def load(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """All bytes of a capture file.  Raises `CaptureError` where it cannot be read, or has more than ``most``."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1 if most >= 0 else -1)
    except OSError as error:
        raise CaptureError(path, 0, f"the file cannot be read ({error.strerror})") from None
    if 0 <= most < len(data):
        raise CaptureError(path, 0, f"more than {most:,} bytes")
    return data


def walk(data: bytes, path: str | os.PathLike[str], *, cut: bool = False) -> Iterator[Span]:
    """Every frame in ``data``, the bytes of the file ``path`` (a name for messages).  Raises `CaptureError`.

    ``cut``: frames of which a part is missing are taken too.
    """
    if len(data) < 8:
        raise CaptureError(path, 0, f"{len(data)} bytes: too short for a capture")
    first = data[:4]
    if first == SHB.to_bytes(4, "big"):
        return _walk_pcapng(data, path, cut)
    for order in ORDERS:
        (magic,) = order.u32.unpack_from(data)
        if magic in (PCAP_US, PCAP_NS):
            return _walk_pcap(data, path, order, 1 if magic == PCAP_NS else 1000, cut)
    raise CaptureError(path, 0, f"it starts with {first.hex(' ')}: neither pcap nor pcapng")


def _check(path: str | os.PathLike[str], at: int, number: int, captured: int, original: int, cut: bool) -> None:
    if captured < original and not cut:
        raise CaptureError(
            path,
            at,
            f"packet {number} was cut to {captured:,} of {original:,} bytes when it was captured: "
            "record with a larger snap length (tcpdump -s 0)",
        )
    if captured > layout.MAX_FRAME:
        raise CaptureError(
            path, at, f"packet {number} has {captured:,} bytes: the largest frame is {layout.MAX_FRAME:,}"
        )


def _check_link(path: str | os.PathLike[str], at: int, link: int) -> None:
    if link != ETHERNET:
        raise CaptureError(path, at, f"link type {link}: only Ethernet ({ETHERNET}) can be replayed")


def _walk_pcap(data: bytes, path: str | os.PathLike[str], order: Order, unit: int, cut: bool) -> Iterator[Span]:
    size = len(data)
    if size < 24:
        raise CaptureError(path, 0, f"{size} bytes: a pcap header has 24")
    _check_link(path, 20, order.u32.unpack_from(data, 20)[0] & 0x0FFF_FFFF)  # above: length of a frame check sequence
    at, number = 24, 0
    while at < size:
        number += 1
        if size - at < 16:
            raise CaptureError(path, at, f"the file ends within the header of packet {number}")
        seconds, fraction, captured, original = order.four.unpack_from(data, at)
        _check(path, at, number, captured, original, cut)
        if at + 16 + captured > size:
            raise CaptureError(path, at, f"the file ends within packet {number}: {captured:,} bytes announced")
        start, at = at + 16, at + 16 + captured
        ns, missing = seconds * BILLION + fraction * unit, max(0, original - captured)
        yield Span(ns, start, captured, UNKNOWN, "", (at, at), at, missing)


def _blocks(data: bytes, path: str | os.PathLike[str]) -> Iterator[tuple[Order, int, int, int]]:
    """(byte order, type, first byte, length) of every block, lengths checked against the file and each other."""
    at, size, order = 0, len(data), ORDERS[0]
    while at < size:
        if size - at < 12:
            raise CaptureError(path, at, f"{size - at} bytes are left: a pcapng block has at least 12")
        kind, length = order.two.unpack_from(data, at)
        if kind == SHB:  # the same in both byte orders; it says which one its section has
            found = [o for o in ORDERS if o.u32.unpack_from(data, at + 8)[0] == BYTE_ORDER]
            if not found:
                raise CaptureError(
                    path, at + 8, f"byte order mark {data[at + 8 : at + 12].hex(' ')} is neither order's"
                )
            order = found[0]
            (length,) = order.u32.unpack_from(data, at + 4)
        if length < (28 if kind == SHB else 12) or length % 4:
            raise CaptureError(path, at, f"a block of type {kind:#x} says that it has {length:,} bytes")
        if at + length > size:
            raise CaptureError(
                path, at, f"the file ends within a block: {length:,} bytes announced, {size - at:,} left"
            )
        (again,) = order.u32.unpack_from(data, at + length - 4)
        if again != length:
            raise CaptureError(path, at, f"a block's two lengths differ: {length:,} before it, {again:,} behind it")
        if kind == SHB:
            major = int.from_bytes(data[at + 12 : at + 14], "little" if order.mark == "<" else "big")
            if major != 1:
                raise CaptureError(path, at + 12, f"pcapng version {major}: 1 is known")
        yield order, kind, at, length
        at += length


def _options(data: bytes, order: Order, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= end:
        code, length = order.option.unpack_from(data, at)
        if code == END or at + 4 + length > end:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)


def _interface(data: bytes, path: str | os.PathLike[str], order: Order, at: int, length: int) -> _Interface:
    if length < 20:
        raise CaptureError(path, at, f"an interface block of {length} bytes: it has at least 20")
    link, _, snaplen = order.idb.unpack_from(data, at + 8)
    _check_link(path, at + 8, link)
    name, units, offset = "", 1_000_000, 0
    for code, value in _options(data, order, at + 16, at + length - 4):
        if code == IF_NAME:
            name = value.rstrip(b"\0").decode("utf-8", "replace")
        elif code == IF_TSRESOL and value:
            units = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == IF_TSOFFSET and len(value) == 8:
            offset = order.i64.unpack(value)[0] * BILLION
    return _Interface(name, units, offset, snaplen)


def _walk_pcapng(data: bytes, path: str | os.PathLike[str], cut: bool) -> Iterator[Span]:
    interfaces: list[_Interface] = []
    number = ns = 0
    for order, kind, at, length in _blocks(data, path):
        end = at + length
        if kind == SHB:
            interfaces = []
        elif kind == IDB:
            interfaces.append(_interface(data, path, order, at, length))
        elif kind in (EPB, PB, SPB):
            number += 1
            if length < (16 if kind == SPB else 32):
                raise CaptureError(path, at, f"packet {number} has a block of {length} bytes: too short")
            if kind == SPB:  # no time and no interface: the first one, and the time of the packet before it
                (original,) = order.u32.unpack_from(data, at + 8)
                which, start = 0, at + 12
                limit = interfaces[0].snaplen if interfaces else 0
                captured = min(original, limit or original)
            else:
                which, high, low, captured, original = order.packet.unpack_from(data, at + 8)
                start = at + 28
                if kind == PB:  # obsolete: a 16-bit interface and a count of drops
                    which = order.option.unpack_from(data, at + 8)[0]
            if which >= len(interfaces):
                raise CaptureError(
                    path, at, f"packet {number} is of interface {which}, of which nothing was said before"
                )
            card = interfaces[which]
            if kind != SPB:
                ns = card.offset_ns + (high << 32 | low) * BILLION // card.units
            _check(path, at, number, captured, original, cut)
            if not -FAR < ns < FAR:
                raise CaptureError(path, at, f"packet {number} is {ns // BILLION:,} seconds from 1970: no such time")
            options = start + (captured + 3 & ~3), end - 4
            if options[0] > options[1]:
                raise CaptureError(path, at, f"packet {number} has {captured:,} bytes in a block of {length:,}")
            direction = UNKNOWN
            if kind != SPB:
                for code, value in _options(data, order, *options):
                    if code == FLAGS and len(value) == 4:
                        direction = (order.u32.unpack(value)[0] & 3) % 3
            else:
                options = (end, end)
            missing = max(0, original - captured)
            yield Span(ns, start, captured, direction, card.name, options, end, missing)


def _comment(data: bytes, span: Span) -> str:
    if span.options[0] == span.options[1]:
        return ""
    # The byte order of the section, told by the length that stands before and behind its block.
    for order in ORDERS:
        (length,) = order.u32.unpack_from(data, span.end - 4)
        if (
            0 < length <= span.end
            and data[span.end - length + 4 : span.end - length + 8] == data[span.end - 4 : span.end]
        ):
            found = [v for code, v in _options(data, order, *span.options) if code == COMMENT]
            return "\n".join(v.rstrip(b"\0").decode("utf-8", "replace") for v in found)
    return ""


def read(path: str | os.PathLike[str], *, cut: bool = False) -> list[Packet]:
    """All frames of a capture, in the order of the file.  Raises `CaptureError`.

    ``cut``: frames of which a part is missing are taken too.
    """
    return packets(load(path), path, cut=cut)


def packets(data: bytes, path: str | os.PathLike[str], *, cut: bool = False) -> list[Packet]:
    """The same of ``data``, the bytes of the file ``path``."""
    return [
        Packet(s.ns, data[s.start : s.start + s.length], s.direction, s.interface, _comment(data, s), s.missing)
        for s in walk(data, path, cut=cut)
    ]


def comments(path: str | os.PathLike[str]) -> list[str]:
    """The comments on a pcapng file as a whole; none on other files.  Raises `CaptureError`."""
    return comments_in(load(path), path)


def comments_in(data: bytes, path: str | os.PathLike[str]) -> list[str]:
    """The same of ``data``, the bytes of the file ``path``."""
    if data[:4] != SHB.to_bytes(4, "big"):
        return []
    found: list[str] = []
    for order, kind, at, length in _blocks(data, path):
        if kind == SHB:
            values = [v for code, v in _options(data, order, at + 24, at + length - 4) if code == COMMENT]
            found += [v.rstrip(b"\0").decode("utf-8", "replace") for v in values]
    return found


def first_timestamp(path: str | os.PathLike[str]) -> int:
    """Earliest time in a capture, ns since 1970; 0 where it holds no frame.  Raises `CaptureError`."""
    return min((span.ns for span in walk(load(path), path)), default=0)


def whole_length(path: str | os.PathLike[str]) -> int:
    """Bytes of a capture up to the last whole block: what is to be kept of a file whose writer was killed."""
    data, end = load(path), 0
    try:
        if data[:4] == SHB.to_bytes(4, "big"):
            for _, _, at, length in _blocks(data, path):
                end = at + length
        else:
            for span in walk(data, path):
                end = span.end
            end = end or len(data)
    except CaptureError:
        pass
    return end
