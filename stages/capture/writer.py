"""Capture files written: pcapng, or classic pcap where the name says so.  `stages.capture.reader` reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from stages.capture.format import (
    APPLICATION,
    BILLION,
    BYTE_ORDER,
    COMMENT,
    END,
    EPB,
    ETHERNET,
    FLAGS,
    IDB,
    IF_NAME,
    IF_TSRESOL,
    LITTLE,
    PCAP_NS,
    SHB,
    SNAPLEN,
)
from stages.capture.layout import recording
from stages.capture.reader import CaptureError


def _option(code: int, value: bytes) -> bytes:
    return LITTLE.option.pack(code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return LITTLE.two.pack(kind, length) + body + LITTLE.u32.pack(length)


def is_classic(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name is written as pcap (``.pcap``, ``.cap``); all others are pcapng."""
    return os.fspath(path).endswith((".pcap", ".cap"))


def header(
    interfaces: Sequence[str], *, classic: bool = False, comment: str | Sequence[str] = "", application: str = "",
    mark: int = 0,
) -> bytes:  # fmt: skip
    """How a file of ours starts: little-endian, Ethernet, nanoseconds.

    ``mark``: 32 bits by which a classic file can be known, where others have a comment; they stand in a field that
    readers must ignore (draft-ietf-opsawg-pcap: Reserved2).
    """
    if classic:
        return LITTLE.u32.pack(PCAP_NS) + LITTLE.option.pack(2, 4) + LITTLE.four.pack(0, mark, SNAPLEN, ETHERNET)
    texts = [(COMMENT, text) for text in ([comment] if isinstance(comment, str) else comment)]
    said = b"".join(_option(code, text.encode()) for code, text in [*texts, (APPLICATION, application)] if text)
    said += _option(END, b"") if said else b""
    out = _block(SHB, LITTLE.u32.pack(BYTE_ORDER) + LITTLE.option.pack(1, 0) + LITTLE.i64.pack(-1) + said)
    for name in interfaces:
        options = (_option(IF_NAME, name.encode()) if name else b"") + _option(IF_TSRESOL, b"\x09") + _option(END, b"")
        out += _block(IDB, LITTLE.idb.pack(ETHERNET, 0, SNAPLEN) + options)
    return out


def record(
    data: bytes, ns: int, direction: int = recording.UNKNOWN, comment: str = "", interface: int = 0, *,
    classic: bool = False, missing: int = 0,
) -> bytes:  # fmt: skip
    """The bytes of one frame: an enhanced packet block, or a record of classic pcap.

    ``missing``: so many bytes of the frame were not kept; ``data`` is its beginning.
    """
    size = len(data)
    if classic:
        return LITTLE.four.pack(ns // BILLION, ns % BILLION, size, size + missing) + data
    options = _option(FLAGS, LITTLE.u32.pack(direction)) if direction else b""
    options += _option(COMMENT, comment.encode()) if comment else b""
    options += _option(END, b"") if options else b""
    fixed = LITTLE.packet.pack(interface, ns >> 32, ns & 0xFFFF_FFFF, size, size + missing)
    return _block(EPB, b"".join((fixed, data, bytes(-size % 4), options)))


class Writer:
    """A capture file that grows.  Its name says the format: ``.pcap`` (no directions, no comments), else pcapng.

    ``keep``: bytes of an existing file to go on from; it is cut to that length.  0 starts anew.  ``beginning``: the
    bytes that a new file starts with, where they are not just the `header` for the other parameters.
    Raises `CaptureError` or OSError.
    """

    def __init__(
        self, path: str | os.PathLike[str], interfaces: Sequence[str] = ("",), keep: int = 0, comment: str = "",
        beginning: bytes = b"",
    ) -> None:  # fmt: skip
        self.path, self.classic = os.fspath(path), is_classic(path)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CaptureError(path, 0, f"the file cannot be written ({error.strerror})") from None
        try:
            size = os.fstat(self._fd).st_size
            self.lost = keep > size  # what was written before is gone: somebody removed or cut the file
            self.truncate(keep if 0 < keep <= size else 0)
            if self.length == 0:
                self.append(beginning or header(interfaces, classic=self.classic, comment=comment))
        except BaseException:
            self.close()  # nobody else can: there is no writer
            raise

    def append(self, data: bytes | memoryview) -> None:
        """Add whole records.  Raises `CaptureError` (a full disk)."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.truncate(self.length)
            raise CaptureError(self.path, self.length, f"the file cannot be written ({error.strerror})") from None
        self.length += len(data)

    def write(
        self, data: bytes, ns: int, direction: int = recording.UNKNOWN, comment: str = "", interface: int = 0
    ) -> None:
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
            fd, self._fd = self._fd, -1  # closed even where it fails: what was written late may be refused here
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
