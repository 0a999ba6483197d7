"""A capture file as bytes: read whole, unpacked where gzip has packed it; what is not read is named, with the mend."""

from __future__ import annotations

import os
import shlex
import zlib
from typing import Final, NamedTuple

MOST_UNPACKED: Final = 512 << 20
"""Bytes that a packed capture may have when it is unpacked: a megabyte of gzip may become a thousand."""

_GZIP: Final = b"\x1f\x8b"
_EITHER_KIND: Final = 31  # zlib: a gzip header and its checksums
_CHUNK: Final = 4096

# What files of captures begin with that are not read here, what they are, and the command that makes them readable.
_PACKED: Final = (
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -d"),
    (b"\xfd7zXZ\0", "xz", "xz -d"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"PK\3\4", "zip", "unzip"),
    (_GZIP, "gzip", "gunzip"),
)
_FOREIGN: Final = (
    (b"snoop\0\0\0", "a snoop capture"),
    (b"RTSS", "a capture of Network Monitor"),
    (b"GMBU", "a capture of Network Monitor"),
    (b"XCP\0", "a capture of NetXRay"),
    (b"\xa1\xb2\x34\xcd", "pcap of a kind that is not read here"),
    (b"\xcd\x34\xb2\xa1", "pcap of a kind that is not read here"),
    (b"\xa1\x2b\x3c\x4d", "pcap of a kind that is not read here"),
    (b"\x4d\x3c\x2b\xa1", "pcap of a kind that is not read here"),
)


class CaptureError(ValueError):
    """A capture that cannot be used: ``path``, ``offset`` (the byte where it goes wrong) and what was ``found``."""

    def __init__(self, path: str | os.PathLike[str], offset: int, found: str) -> None:
        super().__init__(f"{os.fspath(path)}, byte {offset:,}: {found}")
        self.path, self.offset, self.found = os.fspath(path), offset, found


class Source(NamedTuple):
    """The bytes of a capture; ``fault`` says why there are no more of them, where what packed them was cut off."""

    data: bytes
    fault: str = ""


def file(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """The bytes of a file as they are.  Raises `CaptureError` where it cannot be read, or has more than ``most``."""
    try:
        with open(path, "rb") as opened:
            data = opened.read(most + 1 if most >= 0 else -1)
    except OSError as error:
        raise CaptureError(path, 0, f"the file cannot be read ({error.strerror})") from None
    if 0 <= most < len(data):
        raise CaptureError(path, 0, f"more than {most:,} bytes")
    return data


def source(path: str | os.PathLike[str], most: int = -1) -> Source:
    """The bytes of a capture, unpacked.  Raises `CaptureError`, also where they are damaged.

    Offsets in what is packed with gzip are those of what gunzip makes of it.
    """
    data = file(path, most)
    return _unpacked(data, path, most if most >= 0 else MOST_UNPACKED) if data[:2] == _GZIP else Source(data)


def unreadable(data: bytes, path: str | os.PathLike[str]) -> str:
    """What a file is that is neither pcap nor pcapng, with the command that makes it readable where there is one."""
    shown = shlex.quote(os.fspath(path))
    for start, name, command in _PACKED:
        if data.startswith(start):
            return f"it is packed with {name}: `{command} {shown}` makes it readable"
    for start, name in _FOREIGN:
        if data.startswith(start):
            return f"it is {name}: `editcap -F pcapng {shown} NEW.pcapng` makes a readable one of it"
    return f"it starts with {data[:4].hex(' ')}: neither pcap nor pcapng"


def zeros_from(data: bytes) -> int:
    """Where the zeros begin with which ``data`` ends; its length where it does not end in zeros."""
    end = len(data)
    while end:
        start = max(0, end - (1 << 16))
        kept = len(data[start:end].rstrip(b"\0"))
        if kept:
            return start + kept
        end = start
    return 0


def _unpacked(data: bytes, path: str | os.PathLike[str], most: int) -> Source:
    try:
        return _gunzip(data, path, most)
    except zlib.error as error:
        end = zeros_from(data)
        if end < len(data):  # as after a crash of the machine that wrote it
            try:
                found = _gunzip(data[:end], path, most)
            except zlib.error:
                pass
            else:
                return Source(found.data, f"its gzip data ends in zeros from byte {end:,} on")
        text = str(error).rpartition(": ")[2] or "damaged"
        raise CaptureError(path, _damage(data), f"the gzip data cannot be unpacked ({text})") from None


def _gunzip(data: bytes, path: str | os.PathLike[str], most: int) -> Source:
    """What gunzip makes of ``data``, which may be several files one behind the other.  Raises zlib.error."""
    parts, size, left, fault = list[bytes](), 0, data, ""
    while left:
        unpack = zlib.decompressobj(_EITHER_KIND)
        part = unpack.decompress(left, most - size + 1)
        size += len(part)
        if size > most:
            raise CaptureError(
                path, 0, f"more than {most:,} bytes when unpacked: `gunzip {shlex.quote(os.fspath(path))}` first"
            )
        parts.append(part)
        if not unpack.eof:
            fault = "its gzip data ends too early"
            break
        left = unpack.unused_data.lstrip(b"\0")
        if left and not left.startswith(_GZIP):
            raise CaptureError(path, len(data) - len(left), "something stands behind its gzip data")
    return Source(parts[0] if len(parts) == 1 else b"".join(parts), fault)


def _damage(data: bytes) -> int:
    """About where gzip data is damaged."""
    unpack, at = zlib.decompressobj(_EITHER_KIND), 0
    while at < len(data):
        try:
            unpack.decompress(data[at : at + _CHUNK])
        except zlib.error:
            return at
        if unpack.eof:
            at += _CHUNK - len(unpack.unused_data)
            unpack = zlib.decompressobj(_EITHER_KIND)
        else:
            at += _CHUNK
    return at
