"""Capture files read: all that the formats allow; what is broken says where."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.capture import reader as captures
from stages.capture.reader import OUTBOUND, UNKNOWN, CaptureError

T0 = 1_700_000_000_123_456_789


def pcap(order: str, magic: int, records: list[tuple[int, int, bytes]], link: int = 1) -> bytes:
    out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, link)
    for seconds, fraction, data in records:
        out += struct.pack(order + "IIII", seconds, fraction, len(data), len(data)) + data
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order: str, options: bytes = b"", link: int = 1, snaplen: int = 0) -> bytes:
    shb = block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    return shb + block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + options)


def enhanced(order: str, ticks: int, data: bytes, options: bytes = b"", original: int | None = None) -> bytes:
    n = len(data)
    fixed = struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, n, n if original is None else original)
    return block(order, 6, fixed + data + bytes(-n % 4) + options)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_orders_and_units(tmp_path: Path, order: str, magic: int, unit: int) -> None:
    """Both byte orders, microseconds and nanoseconds."""
    path = tmp_path / "x"
    path.write_bytes(pcap(order, magic, [(7, 5, b"\1" * 60), (8, 999_999, b"\2" * 61)]))
    got = captures.read(path)
    assert [(p.ns, p.data) for p in got] == [
        (7_000_000_000 + 5 * unit, b"\1" * 60),
        (8_000_000_000 + 999_999 * unit, b"\2" * 61),
    ]


@pytest.mark.parametrize("order", "<>")
def test_pcapng_orders_resolutions_and_unknown_blocks(tmp_path: Path, order: str) -> None:
    """if_tsresol as a power of ten and of two, if_tsoffset, simple and obsolete packet blocks, unknown blocks."""
    nano = struct.pack(order + "HH", 9, 1) + b"\x09\0\0\0"
    binary = struct.pack(order + "HH", 9, 1) + bytes([0x80 | 10, 0, 0, 0])
    later = struct.pack(order + "HHq", 14, 8, 100)
    flags = struct.pack(order + "HHI", 2, 4, OUTBOUND) + struct.pack(order + "HH", 0, 0)
    obsolete = struct.pack(order + "HHIIII", 0, 65535, 0, 4096, 60, 60) + b"\5" * 60
    data = section(order) + enhanced(order, 5, b"\1" * 61) + block(order, 0x0BAD, b"\xff" * 40)
    data += section(order, nano) + enhanced(order, T0, b"\2" * 62, flags)
    data += block(order, 3, struct.pack(order + "I", 60) + b"\3" * 60)
    data += section(order, binary + later) + enhanced(order, 512, b"\4" * 63) + block(order, 2, obsolete)
    (tmp_path / "x").write_bytes(data)
    got = captures.read(tmp_path / "x")
    assert [(p.ns, p.data[0], len(p.data), p.direction) for p in got] == [
        (5000, 1, 61, UNKNOWN),
        (T0, 2, 62, OUTBOUND),
        (T0, 3, 60, UNKNOWN),
        (100_500_000_000, 4, 63, UNKNOWN),
        (104_000_000_000, 5, 60, UNKNOWN),
    ]


FAR = struct.pack("<HHq", 14, 8, 1 << 60)  # seconds to add to each time
BROKEN = {
    "empty": (b"", 0, "too short"),
    "text": (b"hello, world", 0, "neither pcap nor pcapng"),
    "short header": (pcap("<", 0xA1B2C3D4, [])[:20], 0, "a pcap header has 24"),
    "other link": (pcap("<", 0xA1B2C3D4, [], link=113), 20, "link type 113"),
    "cut header": (pcap("<", 0xA1B2C3D4, [(1, 1, b"\1" * 60)]) + b"\0" * 15, 100, "header of packet 2"),
    "cut packet": (pcap("<", 0xA1B2C3D4, [(1, 1, b"\1" * 60)])[:-1], 24, "within packet 1"),
    "snaplen": (
        pcap("<", 0xA1B2C3D4, [(1, 1, b"")]) + struct.pack("<IIII", 2, 0, 64, 1514) + b"\1" * 64, 40,
        "packet 2 was cut to 64 of 1,514",
    ),
    "too large": (pcap("<", 0xA1B2C3D4, [(1, 1, bytes(69_633))]), 24, "69,633 bytes"),
    "ng order": (b"\x0a\x0d\x0d\x0a" + bytes(24), 8, "byte order mark"),
    "ng link": (section("<", link=113), 36, "link type 113"),
    "ng cut": ((section("<") + enhanced("<", 1, b"\1" * 60))[:-4], 48, "ends within a block"),
    "ng tail": (section("<") + b"\0" * 8, 48, "8 bytes are left"),
    "ng lengths": (section("<")[:-4] + b"\0\0\0\0", 28, "two lengths differ"),
    "ng interface": (section("<")[:28] + enhanced("<", 1, b"\1" * 60), 28, "interface 0"),
    "ng snaplen": (section("<") + enhanced("<", 1, b"\1" * 60, original=90), 48, "packet 1 was cut"),
    "ng simple cut": (section("<", snaplen=64) + block("<", 3, struct.pack("<I", 90) + bytes(64)), 48, "cut to 64"),
    "ng far": (section("<", FAR) + enhanced("<", 1, b"\1" * 60), 60, "no such time"),
    "ng lies": (section("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 900, 900) + bytes(8)), 48, "900 bytes in"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_where(tmp_path: Path, name: str) -> None:
    """A broken file is a typed error with the file, the byte and what was found."""
    data, offset, found = BROKEN[name]
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(CaptureError) as caught:
        captures.read(path)
    assert caught.value.offset == offset
    assert found in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is the same kind of error."""
    with pytest.raises(CaptureError, match="No such file"):
        captures.read(tmp_path / "nothing")


@given(st.binary(max_size=300), st.sampled_from(["<", ">"]), st.booleans())
def test_noise_never_escapes(noise: bytes, order: str, classic: bool) -> None:
    """Whatever follows a right start is read or is a CaptureError."""
    start = pcap(order, 0xA1B2C3D4, []) if classic else section(order)
    offset = 0
    try:
        assert all(s.start + s.length <= len(start) + len(noise) for s in captures.walk(start + noise, "x"))
    except CaptureError as error:
        offset = error.offset
    assert 0 <= offset <= len(start) + len(noise)
