"""Capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), read and written.

Times are whole nanoseconds since 1970.  Python's libraries for these formats (dpkt, python-pcapng) give times as
floats, which at today's date are 240 ns coarse; scapy's licence (GPL) does not fit this project.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Final, NamedTuple, Self

from ring.layout import MAX_FRAME
from stages.layout.record import INBOUND, OUTBOUND, UNKNOWN

__all__ = [
    "INBOUND",
    "OUTBOUND",
    "UNKNOWN",
    "CaptureError",
    "Packet",
    "Span",
    "Writer",
    "comments",
    "first_timestamp",
    "header",
    "is_classic",
    "load",
    "read",
    "record",
    "walk",
    "whole_length",
]

ETHERNET: Final = 1  # LINKTYPE_ETHERNET
SNAPLEN: Final = 262_144
_SHB, _IDB, _PB, _SPB, _EPB = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B3C4D
_PCAP_US, _PCAP_NS = 0xA1B2C3D4, 0xA1B23C4D
_END, _COMMENT, _FLAGS, _IF_NAME, _APPLICATION, _IF_TSRESOL, _IF_TSOFFSET = 0, 1, 2, 2, 4, 9, 14
_BILLION = 1_000_000_000


class CaptureError(Exception):
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


class _Order:
    """The structures of one byte order (``<`` or ``>``)."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.u32, self.two, self.four = Struct(mark + "I"), Struct(mark + "II"), Struct(mark + "IIII")
        self.idb, self.packet = Struct(mark + "HHI"), Struct(mark + "IIIII")
        self.option, self.i64 = Struct(mark + "HH"), Struct(mark + "q")


_ORDERS = (_Order("<"), _Order(">"))


def load(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a capture file.  Raises `CaptureError` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CaptureError(path, 0, f"the file cannot be read ({error.strerror})") from None


def walk(data: bytes, path: str | os.PathLike[str], *, cut: bool = False) -> Iterator[Span]:
    """Every frame in ``data``, the bytes of the file ``path`` (a name for messages).  Raises `CaptureError`.

    ``cut``: frames of which a part is missing are taken too.
    """
    if len(data) < 8:
        raise CaptureError(path, 0, f"{len(data)} bytes: too short for a capture")
    first = data[:4]
    if first == _SHB.to_bytes(4, "big"):
        return _walk_pcapng(data, path, cut)
    for order in _ORDERS:
        (magic,) = order.u32.unpack_from(data)
        if magic in (_PCAP_US, _PCAP_NS):
            return _walk_pcap(data, path, order, 1 if magic == _PCAP_NS else 1000, cut)
    raise CaptureError(path, 0, f"it starts with {first.hex(' ')}: neither pcap nor pcapng")


def _check(path: str | os.PathLike[str], at: int, number: int, captured: int, original: int, cut: bool) -> None:
    if captured < original and not cut:
        raise CaptureError(
            path,
            at,
            f"packet {number} was cut to {captured:,} of {original:,} bytes when it was captured: "
            "record with a larger snap length (tcpdump -s 0)",
        )
    if captured > MAX_FRAME:
        raise CaptureError(path, at, f"packet {number} has {captured:,} bytes: the largest frame is {MAX_FRAME:,}")


def _check_link(path: str | os.PathLike[str], at: int, link: int) -> None:
    if link != ETHERNET:
        raise CaptureError(path, at, f"link type {link}: only Ethernet ({ETHERNET}) can be replayed")


def _walk_pcap(data: bytes, path: str | os.PathLike[str], order: _Order, unit: int, cut: bool) -> Iterator[Span]:
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
        ns, missing = seconds * _BILLION + fraction * unit, max(0, original - captured)
        yield Span(ns, start, captured, UNKNOWN, "", (at, at), at, missing)


def _blocks(data: bytes, path: str | os.PathLike[str]) -> Iterator[tuple[_Order, int, int, int]]:
    """(byte order, type, first byte, length) of every block, lengths checked against the file and each other."""
    at, size, order = 0, len(data), _ORDERS[0]
    while at < size:
        if size - at < 12:
            raise CaptureError(path, at, f"{size - at} bytes are left: a pcapng block has at least 12")
        kind, length = order.two.unpack_from(data, at)
        if kind == _SHB:  # the same in both byte orders; it says which one its section has
            found = [o for o in _ORDERS if o.u32.unpack_from(data, at + 8)[0] == _BYTE_ORDER]
            if not found:
                raise CaptureError(
                    path, at + 8, f"byte order mark {data[at + 8 : at + 12].hex(' ')} is neither order's"
                )
            order = found[0]
            (length,) = order.u32.unpack_from(data, at + 4)
        if length < (28 if kind == _SHB else 12) or length % 4:
            raise CaptureError(path, at, f"a block of type {kind:#x} says that it has {length:,} bytes")
        if at + length > size:
            raise CaptureError(
                path, at, f"the file ends within a block: {length:,} bytes announced, {size - at:,} left"
            )
        (again,) = order.u32.unpack_from(data, at + length - 4)
        if again != length:
            raise CaptureError(path, at, f"a block's two lengths differ: {length:,} before it, {again:,} behind it")
        if kind == _SHB:
            major = int.from_bytes(data[at + 12 : at + 14], "little" if order.mark == "<" else "big")
            if major != 1:
                raise CaptureError(path, at + 12, f"pcapng version {major}: 1 is known")
        yield order, kind, at, length
        at += length


def _options(data: bytes, order: _Order, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= end:
        code, length = order.option.unpack_from(data, at)
        if code == _END or at + 4 + length > end:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)


def _interface(data: bytes, path: str | os.PathLike[str], order: _Order, at: int, length: int) -> _Interface:
    if length < 20:
        raise CaptureError(path, at, f"an interface block of {length} bytes: it has at least 20")
    link, _, snaplen = order.idb.unpack_from(data, at + 8)
    _check_link(path, at + 8, link)
    name, units, offset = "", 1_000_000, 0
    for code, value in _options(data, order, at + 16, at + length - 4):
        if code == _IF_NAME:
            name = value.rstrip(b"\0").decode("utf-8", "replace")
        elif code == _IF_TSRESOL and value:
            units = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _IF_TSOFFSET and len(value) == 8:
            offset = order.i64.unpack(value)[0] * _BILLION
    return _Interface(name, units, offset, snaplen)


def _walk_pcapng(data: bytes, path: str | os.PathLike[str], cut: bool) -> Iterator[Span]:
    interfaces: list[_Interface] = []
    number = ns = 0
    for order, kind, at, length in _blocks(data, path):
        end = at + length
        if kind == _SHB:
            interfaces = []
        elif kind == _IDB:
            interfaces.append(_interface(data, path, order, at, length))
        elif kind in (_EPB, _PB, _SPB):
            number += 1
            if length < (16 if kind == _SPB else 32):
                raise CaptureError(path, at, f"packet {number} has a block of {length} bytes: too short")
            if kind == _SPB:  # no time and no interface: the first one, and the time of the packet before it
                (original,) = order.u32.unpack_from(data, at + 8)
                which, start = 0, at + 12
                limit = interfaces[0].snaplen if interfaces else 0
                captured = min(original, limit or original)
            else:
                which, high, low, captured, original = order.packet.unpack_from(data, at + 8)
                start = at + 28
                if kind == _PB:  # obsolete: a 16-bit interface and a count of drops
                    which = order.option.unpack_from(data, at + 8)[0]
            if which >= len(interfaces):
                raise CaptureError(
                    path, at, f"packet {number} is of interface {which}, of which nothing was said before"
                )
            card = interfaces[which]
            if kind != _SPB:
                ns = card.offset_ns + (high << 32 | low) * _BILLION // card.units
            _check(path, at, number, captured, original, cut)
            options = start + (captured + 3 & ~3), end - 4
            if options[0] > options[1]:
                raise CaptureError(path, at, f"packet {number} has {captured:,} bytes in a block of {length:,}")
            direction = UNKNOWN
            if kind != _SPB:
                for code, value in _options(data, order, *options):
                    if code == _FLAGS and len(value) == 4:
                        direction = (order.u32.unpack(value)[0] & 3) % 3
            else:
                options = (end, end)
            missing = max(0, original - captured)
            yield Span(ns, start, captured, direction, card.name, options, end, missing)


def _comment(data: bytes, span: Span) -> str:
    if span.options[0] == span.options[1]:
        return ""
    # The byte order of the section, told by the length that stands before and behind its block.
    for order in _ORDERS:
        (length,) = order.u32.unpack_from(data, span.end - 4)
        if (
            0 < length <= span.end
            and data[span.end - length + 4 : span.end - length + 8] == data[span.end - 4 : span.end]
        ):
            found = [v for code, v in _options(data, order, *span.options) if code == _COMMENT]
            return "\n".join(v.rstrip(b"\0").decode("utf-8", "replace") for v in found)
    return ""


def read(path: str | os.PathLike[str], *, cut: bool = False) -> list[Packet]:
    """All frames of a capture, in the order of the file.  Raises `CaptureError`.

    ``cut``: frames of which a part is missing are taken too.
    """
    data = load(path)
    return [
        Packet(s.ns, data[s.start : s.start + s.length], s.direction, s.interface, _comment(data, s), s.missing)
        for s in walk(data, path, cut=cut)
    ]


def comments(path: str | os.PathLike[str]) -> list[str]:
    """The comments on a pcapng file as a whole; none on other files.  Raises `CaptureError`."""
    data = load(path)
    if data[:4] != _SHB.to_bytes(4, "big"):
        return []
    found: list[str] = []
    for order, kind, at, length in _blocks(data, path):
        if kind == _SHB:
            values = [v for code, v in _options(data, order, at + 24, at + length - 4) if code == _COMMENT]
            found += [v.rstrip(b"\0").decode("utf-8", "replace") for v in values]
    return found


def first_timestamp(path: str | os.PathLike[str]) -> int:
    """Earliest time in a capture, ns since 1970; 0 where it holds no frame.  Raises `CaptureError`."""
    return min((span.ns for span in walk(load(path), path)), default=0)


def whole_length(path: str | os.PathLike[str]) -> int:
    """Bytes of a capture up to the last whole block: what is to be kept of a file whose writer was killed."""
    data, end = load(path), 0
    try:
        if data[:4] == _SHB.to_bytes(4, "big"):
            for _, _, at, length in _blocks(data, path):
                end = at + length
        else:
            for span in walk(data, path):
                end = span.end
            end = end or len(data)
    except CaptureError:
        pass
    return end


# --- writing ----------------------------------------------------------------------------------------------------
def _option(code: int, value: bytes) -> bytes:
    return _ORDERS[0].option.pack(code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return _ORDERS[0].two.pack(kind, length) + body + _ORDERS[0].u32.pack(length)


def is_classic(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name is written as pcap (``.pcap``, ``.cap``); all others are pcapng."""
    return os.fspath(path).endswith((".pcap", ".cap"))


def header(
    interfaces: Sequence[str], *, classic: bool = False, comment: str | Sequence[str] = "", application: str = ""
) -> bytes:
    """How a file of ours starts: little-endian, Ethernet, nanoseconds."""
    little = _ORDERS[0]
    if classic:
        return little.u32.pack(_PCAP_NS) + little.option.pack(2, 4) + little.four.pack(0, 0, SNAPLEN, ETHERNET)
    texts = [(_COMMENT, text) for text in ([comment] if isinstance(comment, str) else comment)]
    said = b"".join(_option(code, text.encode()) for code, text in [*texts, (_APPLICATION, application)] if text)
    said += _option(_END, b"") if said else b""
    out = _block(_SHB, little.u32.pack(_BYTE_ORDER) + little.option.pack(1, 0) + little.i64.pack(-1) + said)
    for name in interfaces:
        options = (
            (_option(_IF_NAME, name.encode()) if name else b"") + _option(_IF_TSRESOL, b"\x09") + _option(_END, b"")
        )
        out += _block(_IDB, little.idb.pack(ETHERNET, 0, SNAPLEN) + options)
    return out


def record(
    data: bytes, ns: int, direction: int = UNKNOWN, comment: str = "", interface: int = 0, *,
    classic: bool = False, missing: int = 0,
) -> bytes:  # fmt: skip
    """The bytes of one frame: an enhanced packet block, or a record of classic pcap.

    ``missing``: so many bytes of the frame were not kept; ``data`` is its beginning.
    """
    little, size = _ORDERS[0], len(data)
    if classic:
        return little.four.pack(ns // _BILLION, ns % _BILLION, size, size + missing) + data
    options = _option(_FLAGS, little.u32.pack(direction)) if direction else b""
    options += _option(_COMMENT, comment.encode()) if comment else b""
    options += _option(_END, b"") if options else b""
    fixed = little.packet.pack(interface, ns >> 32, ns & 0xFFFF_FFFF, size, size + missing)
    return _block(_EPB, b"".join((fixed, data, bytes(-size % 4), options)))


class Writer:
    """A capture file that grows.  Its name says the format: ``.pcap`` (no directions, no comments), else pcapng.

    ``keep``: bytes of an existing file to go on from; it is cut to that length.  0 starts anew.
    """

    def __init__(
        self, path: str | os.PathLike[str], interfaces: Sequence[str] = ("",), keep: int = 0, comment: str = ""
    ) -> None:
        self.path, self.classic = os.fspath(path), is_classic(path)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CaptureError(path, 0, f"the file cannot be written ({error.strerror})") from None
        size = os.fstat(self._fd).st_size
        self.length = keep if 0 < keep <= size else 0
        self.lost = keep > size  # what was written before is gone: somebody removed or cut the file
        os.ftruncate(self._fd, self.length)
        os.lseek(self._fd, self.length, os.SEEK_SET)
        if self.length == 0:
            self.append(header(interfaces, classic=self.classic, comment=comment))

    def append(self, data: bytes | memoryview) -> None:
        """Add whole records.  Raises `CaptureError` (a full disk)."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            os.ftruncate(self._fd, self.length)
            raise CaptureError(self.path, self.length, f"the file cannot be written ({error.strerror})") from None
        self.length += len(data)

    def write(self, data: bytes, ns: int, direction: int = UNKNOWN, comment: str = "", interface: int = 0) -> None:
        """Add one frame, captured ``ns`` nanoseconds after 1970."""
        self.append(record(data, ns, direction, comment, interface, classic=self.classic))

    def truncate(self, length: int) -> None:
        """Cut the file to a length that `length` once had."""
        os.ftruncate(self._fd, length)
        os.lseek(self._fd, length, os.SEEK_SET)
        self.length = length

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
