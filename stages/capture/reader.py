"""Capture files read: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).

`stages.capture.writer` writes them.

What is replayed of a capture is what `taken` takes: a file that ends too early as far as it is whole, and of several
interfaces in a pcapng file those that are Ethernet.  It says what is left out; to `walk` and `read` it is an error.

Times are whole nanoseconds since 1970.  Python's libraries for these formats (dpkt, python-pcapng) give times as
floats, which at today's date are 240 ns coarse; scapy's licence (GPL) does not fit this project.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ring import layout
from stages.capture.ends import blocks_behind, records_behind
from stages.capture.format import (
    BILLION,
    BYTE_ORDER,
    COMMENT,
    END,
    EPB,
    ETHERNET,
    FAR,
    FCS_KNOWN,
    FLAGS,
    IDB,
    IF_FCSLEN,
    IF_NAME,
    IF_TSOFFSET,
    IF_TSRESOL,
    LINK,
    ORDERS,
    PB,
    PCAP_MODIFIED,
    PCAP_NS,
    PCAP_US,
    SHB,
    SPB,
    Order,
)
from stages.capture.layout.recording import INBOUND, OUTBOUND, UNKNOWN
from stages.capture.source import CaptureError, file, source, unreadable, zeros_from

__all__ = [
    "INBOUND",
    "OUTBOUND",
    "UNKNOWN",
    "CaptureError",
    "Left",
    "Packet",
    "Span",
    "Taken",
    "comments",
    "comments_in",
    "first_timestamp",
    "load",
    "packets",
    "read",
    "taken",
    "walk",
    "whole_length",
]


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


@dataclass
class Left:
    """What a walk over a capture has left out.

    ``end``: the byte at which a file ends before what stands there is whole, -1 where it does not, and ``why``.
    ``others``: frames of each interface that is not Ethernet, by its name.
    """

    end: int = -1
    why: str = ""
    others: dict[str, int] = field(default_factory=dict)

    @property
    def interfaces(self) -> list[str]:
        """Those of which a frame is left out."""
        return [name for name, frames in self.others.items() if frames]

    @property
    def frames(self) -> int:
        """How many frames of them."""
        return sum(self.others.values())


class Taken(NamedTuple):
    """A capture as it is replayed: its bytes, the frames in the file's order, and what is left out."""

    data: bytes
    spans: list[Span]
    left: Left


class _Interface(NamedTuple):
    name: str
    units: int  # ticks in a second
    offset_ns: int
    snaplen: int
    fcs: int  # bytes of the check sequence that its frames end with
    other: str  # what it is called where it is not Ethernet


def load(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """All bytes of a capture file.  Raises `CaptureError` where it cannot be read, or has more than ``most``."""
    data, fault = source(path, most)
    if fault:
        raise CaptureError(path, len(data), fault)
    return data


def taken(path: str | os.PathLike[str]) -> Taken:
    """A capture as it is replayed.  Raises `CaptureError`."""
    (data, fault), left = source(path), Left()
    spans = list(walk(data, path, left=left))
    if fault and left.end < 0:
        left.end, left.why = len(data), fault
    return Taken(data, spans, left)


def walk(data: bytes, path: str | os.PathLike[str], *, cut: bool = False, left: Left | None = None) -> Iterator[Span]:
    """Every frame in ``data``, the bytes of the file ``path`` (a name for messages).  Raises `CaptureError`.

    ``cut``: frames of which a part is missing are taken too.  ``left``: what `taken` leaves out is left out, and stands
    there when the walk is over; without it it is an error.
    """
    if len(data) < 8:
        raise CaptureError(path, 0, f"{len(data)} bytes: too short for a capture")
    if data[:4] == SHB.to_bytes(4, "big"):
        return _walk_pcapng(data, path, cut, left)
    for order in ORDERS:
        (magic,) = order.u32.unpack_from(data)
        if magic in (PCAP_US, PCAP_NS, PCAP_MODIFIED):
            return _walk_pcap(data, path, order, magic, cut, left)
    raise CaptureError(path, 0, unreadable(data, path))


def _refused(path: str | os.PathLike[str], at: int, number: int, captured: int, original: int, length: int) -> None:
    """Raise `CaptureError` for a frame that is too long, or of which a part is missing."""
    if length > layout.MAX_FRAME:
        raise CaptureError(path, at, f"packet {number} has {length:,} bytes: the largest frame is {layout.MAX_FRAME:,}")
    raise CaptureError(
        path,
        at,
        f"packet {number} was cut to {captured:,} of {original:,} bytes when it was captured: "
        "record with a larger snap length (tcpdump -s 0)",
    )


def _other_link(path: str | os.PathLike[str], at: int, link: int) -> CaptureError:
    return CaptureError(path, at, f"link type {link}: only Ethernet ({ETHERNET}) can be replayed")


def _walk_pcap(
    data: bytes, path: str | os.PathLike[str], order: Order, magic: int, cut: bool, left: Left | None
) -> Iterator[Span]:
    size = len(data)
    if size < 24:
        raise CaptureError(path, 0, f"{size} bytes: a pcap header has 24")
    (link,) = order.u32.unpack_from(data, 20)
    if link & LINK != ETHERNET:
        raise _other_link(path, 20, link & LINK)
    fcs = (link >> 28) * 2 if link & FCS_KNOWN else 0
    modified = magic == PCAP_MODIFIED
    head, unit = 24 if modified else 16, 1 if magic == PCAP_NS else 1000
    unpack, zeros, direction = order.four.unpack_from, zeros_from(data), UNKNOWN
    at, number = 24, 0
    second, odd = BILLION // unit, 0  # where a record stands that no right one can be, though it can be read
    while at < size:
        number += 1
        start = at + head
        if start > size:
            _ends(path, at, f"the file ends within the header of packet {number}", left)
            return
        seconds, fraction, captured, original = unpack(data, at)
        end = start + captured
        if start >= zeros and (at >= zeros or end != size):  # an empty frame is none where all the rest is zeros
            filled = f"zeros from packet {number} to the end of the file"
            _ends(path, at, filled if size - zeros >= head else f"the file ends within packet {number}", left)
            return
        length, missing = captured, 0
        if fcs or captured != original:
            length, missing = _lengths(captured, original, fcs)
        if not odd and (captured > original or fraction >= second):
            odd = at
        if length > layout.MAX_FRAME or (missing and not cut):
            _refused(path, at, number, captured, original, length)
        if end > size:
            found = f"the file ends within packet {number}: {captured:,} bytes announced"
            if left is not None and odd:
                raise CaptureError(
                    path, odd, "a packet whose header cannot be right, and later ones do not fit the file"
                )
            if left is not None and records_behind(data, at, order, head):
                raise CaptureError(path, at, f"{found}, but packets stand behind its header: it is damaged")
            _ends(path, at, found, left)
            return
        if not (seconds or captured or original):
            raise CaptureError(path, at, f"packet {number} is zeros, and something stands behind it: it is damaged")
        if modified:  # it has Linux's kind of packet: 4 went out, and who does not know writes 0
            direction = OUTBOUND if data[at + 22] == 4 else UNKNOWN
        at = end
        yield Span(seconds * BILLION + fraction * unit, start, length, direction, "", (at, at), at, missing)


def _lengths(captured: int, original: int, fcs: int) -> tuple[int, int]:
    """Bytes of a frame without its check sequence: those that the file has, and those that are missing."""
    whole = max(captured, original) - fcs
    length = max(0, min(captured, whole))
    return length, max(0, whole - length)


def _ends(path: str | os.PathLike[str], at: int, why: str, left: Left | None) -> None:
    """Note that a file ends too early, at ``at``; raise `CaptureError` where nobody asks for what is before that."""
    if left is None:
        raise CaptureError(path, at, why)
    left.end, left.why = at, why


def _blocks(
    data: bytes, path: str | os.PathLike[str], left: Left | None = None
) -> Iterator[tuple[Order, int, int, int]]:
    """(byte order, type, first byte, length) of every block, lengths checked against the file and each other."""
    at, size, order, zeros = 0, len(data), ORDERS[0], zeros_from(data)
    while at < size:
        right = False
        if size - at >= 12:
            kind, length = order.two.unpack_from(data, at)
            if kind != SHB and 12 <= length <= size - at and not length & 3:
                right = order.u32.unpack_from(data, at + length - 4)[0] == length
        if not right:  # the start of a section, or something is wrong
            try:
                order, kind, length = _block(data, path, order, at)
            except CaptureError as error:
                if left is None or at == 0 or not _is_the_end(data, order, at, zeros):
                    raise
                filled = zeros <= at + 8 and size - zeros >= 16
                left.end, left.why = at, "zeros to the end of the file" if filled else error.found
                return
        yield order, kind, at, length
        at += length


def _block(data: bytes, path: str | os.PathLike[str], order: Order, at: int) -> tuple[Order, int, int]:
    """The byte order, type and length of the block at ``at``."""
    size = len(data)
    if size - at < 12:
        raise CaptureError(path, at, f"{size - at} bytes are left: a pcapng block has at least 12")
    kind, length = order.two.unpack_from(data, at)
    if kind == SHB:  # the same in both byte orders; it says which one its section has
        found = [o for o in ORDERS if o.u32.unpack_from(data, at + 8)[0] == BYTE_ORDER]
        if not found:
            raise CaptureError(path, at + 8, f"byte order mark {data[at + 8 : at + 12].hex(' ')} is neither order's")
        order = found[0]
        (length,) = order.u32.unpack_from(data, at + 4)
    if length < (28 if kind == SHB else 12) or length % 4:
        raise CaptureError(path, at, f"a block of type {kind:#x} says that it has {length:,} bytes")
    if at + length > size:
        raise CaptureError(path, at, f"the file ends within a block: {length:,} bytes announced, {size - at:,} left")
    (again,) = order.u32.unpack_from(data, at + length - 4)
    if again != length:
        raise CaptureError(path, at, f"a block's two lengths differ: {length:,} before it, {again:,} behind it")
    if kind == SHB:
        major = int.from_bytes(data[at + 12 : at + 14], "little" if order.mark == "<" else "big")
        if major != 1:
            raise CaptureError(path, at + 12, f"pcapng version {major}: 1 is known")
    return order, kind, length


def _is_the_end(data: bytes, order: Order, at: int, zeros: int) -> bool:
    """Whether the block at ``at`` is only cut off, or was never written beyond some byte: zeros to the end."""
    size = len(data)
    if size - at < 12 or zeros <= at + 8:
        return True
    (length,) = order.u32.unpack_from(data, at + 4)
    if at + length > size:
        return not blocks_behind(data, at, order)
    return bool(zeros <= at + length - 4)


def _options(data: bytes, order: Order, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= end:
        code, length = order.option.unpack_from(data, at)
        if code == END or at + 4 + length > end:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)


def _interface(
    data: bytes, path: str | os.PathLike[str], order: Order, at: int, length: int, number: int
) -> _Interface:
    if length < 20:
        raise CaptureError(path, at, f"an interface block of {length} bytes: it has at least 20")
    link, _, snaplen = order.idb.unpack_from(data, at + 8)
    name, units, offset, fcs = "", 1_000_000, 0, 0
    for code, value in _options(data, order, at + 16, at + length - 4):
        if code == IF_NAME:
            name = value.rstrip(b"\0").decode("utf-8", "replace")
        elif code == IF_TSRESOL and value:
            units = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == IF_FCSLEN and value:
            # In bits, says the text of the format; its example, and so many a writer, means bytes.
            fcs = value[0] if value[0] < 8 else value[0] // 8
        elif code == IF_TSOFFSET and len(value) == 8:
            offset = order.i64.unpack(value)[0] * BILLION
    other = "" if link == ETHERNET else f"{number}{f' {name}' if name else ''} (link type {link})"
    return _Interface(name, units, offset, snaplen, fcs, other)


def _walk_pcapng(data: bytes, path: str | os.PathLike[str], cut: bool, left: Left | None) -> Iterator[Span]:
    interfaces: list[_Interface] = []
    number = ns = 0
    ethernet, other = False, None  # what is wrong with the first interface that is not Ethernet
    for order, kind, at, length in _blocks(data, path, left):
        end = at + length
        if kind == SHB:
            interfaces = []
        elif kind == IDB:
            card = _interface(data, path, order, at, length, len(interfaces))
            interfaces.append(card)
            ethernet = ethernet or not card.other
            if card.other and other is None:
                other = _other_link(path, at + 8, order.option.unpack_from(data, at + 8)[0])
                if left is None:
                    raise other
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
            if card.other:
                if left is not None:
                    left.others[card.other] = left.others.get(card.other, 0) + 1
                continue
            if kind != SPB:
                ns = card.offset_ns + (high << 32 | low) * BILLION // card.units
            options = start + (captured + 3 & ~3), end - 4
            direction, fcs = UNKNOWN, card.fcs
            if kind == SPB:
                options = (end, end)
            else:
                for code, value in _options(data, order, *options):
                    if code == FLAGS and len(value) == 4:
                        (flags,) = order.u32.unpack(value)
                        direction, fcs = (flags & 3) % 3, flags >> 5 & 15 or fcs
            size, missing = captured, 0
            if fcs or captured != original:
                size, missing = _lengths(captured, original, fcs)
            if size > layout.MAX_FRAME or (missing and not cut):
                _refused(path, at, number, captured, original, size)
            if not -FAR < ns < FAR:
                raise CaptureError(path, at, f"packet {number} is {ns // BILLION:,} seconds from 1970: no such time")
            if start + (captured + 3 & ~3) > end - 4:
                raise CaptureError(path, at, f"packet {number} has {captured:,} bytes in a block of {length:,}")
            yield Span(ns, start, size, direction, card.name, options, end, missing)
    if other is not None and not ethernet:
        raise other


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
    return min((span.ns for span in taken(path).spans), default=0)


def whole_length(path: str | os.PathLike[str]) -> int:
    """Bytes of a capture up to the last whole block: what is to be kept of a file whose writer was killed."""
    data, end = file(path), 0
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
