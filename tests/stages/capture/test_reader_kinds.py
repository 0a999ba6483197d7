"""Capture files of the kinds that people have: flags beside the link type, packed, of several interfaces."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ring import layout
from stages.capture import reader as captures
from stages.capture import source
from stages.capture.kind import KIND
from stages.capture.reader import INBOUND, OUTBOUND, UNKNOWN, CaptureError
from tests.packets import udp_frame
from tests.rig import Rig
from tests.stages.capture.test_reader import block, enhanced, pcap, section

FRAMES = [udp_frame("10.0.0.1", "10.0.0.2", 9, 9, bytes([n]) * 40) for n in range(4)]
SUM = b"\xde\xad\xbe\xef"
FOUR = 2 << 28 | 1 << 26  # a check sequence of two times two bytes


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def data(path: Path) -> list[bytes]:
    """The frames that are replayed."""
    found = captures.taken(path)
    return [found.data[s.start : s.start + s.length] for s in found.spans]


# --- check sequences ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("flags", "behind"),
    [
        (FOUR, SUM), (4 << 28 | 1 << 26, SUM + SUM),
        (0, b""), (1 << 26, b""), (2 << 28, b""), (1 << 27, b""), (0x03FF << 16, b""),
    ],
)  # fmt: skip
def test_flags_beside_the_link_type_are_no_part_of_it(tmp_path: Path, order: str, flags: int, behind: bytes) -> None:
    """The lower 16 bits are the type; a check sequence whose length is said is cut off, other flags say nothing."""
    records = [(n + 1, 0, frame + behind) for n, frame in enumerate(FRAMES)]
    path = write(tmp_path / "x", pcap(order, 0xA1B2C3D4, records, flags | 1))
    assert data(path) == FRAMES
    assert [p.data for p in captures.read(path)] == FRAMES


def test_another_link_is_named_without_its_flags(tmp_path: Path) -> None:
    """113 stays 113."""
    with pytest.raises(CaptureError, match="byte 20: link type 113: only"):
        captures.read(write(tmp_path / "x", pcap("<", 0xA1B2C3D4, [], FOUR | 113)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("said", [4, 32])
def test_the_check_sequence_of_an_interface(tmp_path: Path, order: str, said: int) -> None:
    """if_fcslen in bytes, as its example has it, or in bits, as its text has it; epb_flags say it of one packet."""
    length = struct.pack(order + "HHB", 13, 1, said) + bytes(3)
    none = struct.pack(order + "HHI", 2, 4, OUTBOUND)
    two = struct.pack(order + "HHI", 2, 4, 2 << 5 | INBOUND)
    blocks = section(order, length) + enhanced(order, 1, FRAMES[0] + SUM) + enhanced(order, 2, FRAMES[1] + SUM, none)
    blocks += enhanced(order, 3, FRAMES[2] + SUM[:2], two)
    blocks += block(
        order, 3, struct.pack(order + "I", len(FRAMES[3]) + 4) + FRAMES[3] + SUM + bytes(-len(FRAMES[3]) % 4)
    )
    path = write(tmp_path / "x", blocks)
    assert data(path) == FRAMES
    assert [p.direction for p in captures.read(path)] == [UNKNOWN, OUTBOUND, INBOUND, UNKNOWN]


def test_a_frame_cut_within_its_check_sequence_is_whole(tmp_path: Path) -> None:
    """What is missing of it is not part of the frame; one byte more is."""
    for kept, missing in ((4, 0), (2, 0), (0, 0), (-1, 1)):
        stored = (FRAMES[0] + SUM)[: len(FRAMES[0]) + kept]
        head = struct.pack("<IIII", 1, 0, len(stored), len(FRAMES[0]) + 4)
        path = write(tmp_path / "x", pcap("<", 0xA1B2C3D4, [], FOUR | 1) + head + stored)
        (packet,) = captures.read(path, cut=True)
        assert (packet.data, packet.missing) == (FRAMES[0][: len(FRAMES[0]) - missing], missing)
        if missing:
            with pytest.raises(CaptureError, match="packet 1 was cut"):
                captures.taken(path)


def test_a_frame_shorter_than_its_check_sequence_is_empty(tmp_path: Path) -> None:
    """Nothing is taken from before it."""
    path = write(tmp_path / "x", pcap("<", 0xA1B2C3D4, [(1, 0, b"\1\2"), (2, 0, FRAMES[0] + SUM)], FOUR | 1))
    assert data(path) == [b"", FRAMES[0]]


# --- interfaces -----------------------------------------------------------------------------------------------------
def interface(link: int, name: bytes = b"") -> bytes:
    named = struct.pack("<HH", 2, len(name)) + name + bytes(-len(name) % 4) if name else b""
    return block("<", 1, struct.pack("<HHI", link, 0, 0) + named)


def of(which: int, ticks: int, frame: bytes, original: int | None = None) -> bytes:
    fixed = struct.pack("<IIIII", which, 0, ticks, len(frame), original or len(frame))
    return block("<", 6, fixed + frame + bytes(-len(frame) % 4))


def test_frames_of_an_odd_interface_are_left_out_and_counted(tmp_path: Path) -> None:
    """Whatever they are: cut, too long; those of the others keep their interfaces.  Alone the walk refuses the file."""
    raw = bytes(30)
    blocks = section("<", link=113) + interface(1, b"eth0") + interface(127, b"wlan0") + interface(101)
    blocks += of(1, 1, FRAMES[0]) + of(2, 2, raw, 90) + of(0, 3, bytes(70_000)) + of(1, 4, FRAMES[1]) + of(2, 5, raw)
    blocks += block("<", 3, struct.pack("<I", 30) + raw + bytes(2))  # a simple packet is of the first interface
    path = write(tmp_path / "x", blocks)
    found = captures.taken(path)
    assert data(path) == FRAMES[:2]
    assert [s.interface for s in found.spans] == ["eth0", "eth0"]
    assert found.left.others == {"0 (link type 113)": 2, "2 wlan0 (link type 127)": 2}
    assert found.left.frames == 4 and found.left.end == -1
    with pytest.raises(CaptureError, match="byte 36: link type 113: only"):
        captures.read(path)


def test_an_odd_interface_without_frames_is_no_matter(tmp_path: Path) -> None:
    """Wireshark lists every interface that it was given."""
    found = captures.taken(write(tmp_path / "x", section("<") + interface(113) + of(0, 1, FRAMES[0])))
    assert len(found.spans) == 1 and found.left == captures.Left()


def test_a_file_without_an_ethernet_interface_is_refused(tmp_path: Path) -> None:
    """It holds nothing to replay: the first interface is named, as ever."""
    blocks = section("<", link=113) + interface(101) + of(0, 1, bytes(30)) + section("<", link=127)
    with pytest.raises(CaptureError, match="byte 36: link type 113: only"):
        captures.taken(write(tmp_path / "x", blocks))


def test_each_section_has_interfaces_of_its_own(tmp_path: Path) -> None:
    """The same number is another interface in the next section."""
    blocks = section("<", link=113) + of(0, 1, bytes(30)) + section("<") + of(0, 2, FRAMES[0])
    found = captures.taken(write(tmp_path / "x", blocks))
    assert len(found.spans) == 1 and found.left.others == {"0 (link type 113)": 1}


def test_one_warning_says_what_is_left_out(tmp_path: Path) -> None:
    """Which interfaces, how many frames; what the segment is sized by is what is replayed."""
    ways = [struct.pack("<HHI", 2, 4, way) for way in (INBOUND, OUTBOUND)]
    blocks = section("<") + interface(113, b"any") + enhanced("<", 1, FRAMES[0], ways[0])
    blocks += enhanced("<", 2, FRAMES[1], ways[1]) + of(1, 1, bytes(40)) * 3
    path = write(tmp_path / "x", blocks)
    with capture_logs() as logs, Rig("netdev-pcap", {"read": str(path), "pace": "asap"}) as rig:
        rig.command(layout.CMD_CLOCK, 1)
        rig.run(10)
        assert rig.take("receive") == [FRAMES[0]]
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert warning["event"] == "frames of interfaces that are not Ethernet are left out"
    assert (warning["interfaces"], warning["frames"]) == ("1 any (link type 113)", 3)
    assert KIND.words_of({"read": str(path)}) == KIND.words_of({"read": str(whole(tmp_path, ways))})


def whole(folder: Path, ways: list[bytes]) -> Path:
    """The same without the odd interface."""
    return write(
        folder / "y", section("<") + enhanced("<", 1, FRAMES[0], ways[0]) + enhanced("<", 2, FRAMES[1], ways[1])
    )


# --- other formats --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", "<>")
def test_modified_pcap(tmp_path: Path, order: str) -> None:
    """Kuznetsov's: each record has an interface, a protocol and a kind of packet more; 4 went out."""
    out = struct.pack(order + "IHHIIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    for n, (frame, kind) in enumerate(zip(FRAMES, (0, 4, 3, 9), strict=True)):
        out += struct.pack(order + "IIIIIHBB", n, 7, len(frame), len(frame), 1, 0, kind, 0) + frame
    path = write(tmp_path / "x", out)
    assert data(path) == FRAMES
    got = captures.read(path)
    assert [p.ns for p in got] == [n * 1_000_000_000 + 7000 for n in range(4)]
    assert [p.direction for p in got] == [UNKNOWN, OUTBOUND, UNKNOWN, UNKNOWN]


RECORDS = [(n + 1, 5, frame) for n, frame in enumerate(FRAMES)]
PLAIN = pcap("<", 0xA1B2C3D4, RECORDS)


def test_gzip_is_read(tmp_path: Path) -> None:
    """Of one piece or several, of both formats; comments too."""
    assert data(write(tmp_path / "a", gzip.compress(PLAIN))) == FRAMES
    assert data(write(tmp_path / "b", gzip.compress(PLAIN[:70]) + gzip.compress(PLAIN[70:]) + bytes(512))) == FRAMES
    assert captures.first_timestamp(tmp_path / "b") == 1_000_005_000
    comment = struct.pack("<HH", 1, 4) + b"said"
    shb = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + comment)
    write(tmp_path / "c", gzip.compress(shb + interface(1) + of(0, 1, FRAMES[0])))
    assert captures.comments(tmp_path / "c") == ["said"]
    assert [p.data for p in captures.read(tmp_path / "c")] == FRAMES[:1]


def test_what_gzip_unpacks_to_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few bytes may unpack to more than the machine has."""
    path = write(tmp_path / "a b.gz", gzip.compress(PLAIN) + gzip.compress(bytes(5_000)))
    monkeypatch.setattr(source, "MOST_UNPACKED", len(PLAIN) + 4_999)
    with pytest.raises(CaptureError, match=r"more than 5,\d+ bytes when unpacked: `gunzip '/.*a b.gz'` first"):
        captures.taken(path)
    monkeypatch.setattr(source, "MOST_UNPACKED", len(PLAIN) + 5_000)
    assert len(captures.taken(path).spans) == 4
    with pytest.raises(CaptureError, match="more than 300 bytes when unpacked"):
        captures.load(path, 300)


def test_gzip_that_ends_too_early(tmp_path: Path) -> None:
    """What it holds is replayed as far as it is whole; who wants all of it gets an error."""
    packed = gzip.compress(PLAIN, 0)
    for cut in (packed[:-1], packed[:-9], packed[:-60], packed[:-60] + bytes(4096)):
        path = write(tmp_path / "x", cut)
        found = captures.taken(path)
        assert data(path) == FRAMES[: len(found.spans)] and len(found.spans) >= 3
        assert found.left.end >= 0 and found.left.why
        with pytest.raises(CaptureError, match="its gzip data ends"):
            captures.load(path)


def test_damaged_gzip_says_where(tmp_path: Path) -> None:
    """About where; a wrong checksum, and what does not belong there."""
    noise = zlib.compress(b"x" * 999)  # deterministic bytes that do not pack
    body = gzip.compress(pcap("<", 0xA1B2C3D4, [(1, 0, (noise * 999)[:60_000])]), 1)
    broken = body[: len(body) // 2] + bytes(8) + body[len(body) // 2 + 8 :]
    for blob, found in (
        (broken, "cannot be unpacked"),
        (body[:-8] + b"\1\2\3\4" + body[-4:], "cannot be unpacked .incorrect data check"),
        (body + b"more", "stands behind its gzip data"),
    ):
        with pytest.raises(CaptureError, match=found) as caught:
            captures.taken(write(tmp_path / "x", blob))
        assert 0 <= caught.value.offset <= len(blob)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\x28\xb5\x2f\xfd", "packed with zstd: `zstd -d "),
        (b"\x04\x22\x4d\x18", "packed with lz4: `lz4 -d "),
        (b"\xfd7zXZ\0", "packed with xz: `xz -d "),
        (b"BZh9", "packed with bzip2: `bunzip2 "),
        (b"PK\3\4", "packed with zip: `unzip "),
        (b"snoop\0\0\0", "a snoop capture: `editcap -F pcapng "),
        (b"\xcd\x34\xb2\xa1", "pcap of a kind that is not read here: `editcap -F pcapng "),
        (b"\x7fELF", "it starts with 7f 45 4c 46: neither pcap nor pcapng"),
    ],
)
def test_what_is_not_read_is_named_with_the_command_that_helps(tmp_path: Path, start: bytes, said: str) -> None:
    """By its first bytes; also within gzip."""
    for blob in (start + bytes(40), gzip.compress(start + bytes(40))):
        with pytest.raises(CaptureError) as caught:
            captures.taken(write(tmp_path / "x", blob))
        assert said in str(caught.value) and caught.value.offset == 0
