"""Captures that end too early: cut off, or filled up with zeros.  Damage in the middle stays an error with a place."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ring import layout
from stages.capture import reader as captures
from stages.capture.kind import KIND
from stages.capture.reader import INBOUND, OUTBOUND, CaptureError
from stages.capture.writer import header, record
from tests.packets import udp_frame
from tests.rig import Rig
from tests.stages.capture.test_reader import block, enhanced, pcap, section

FRAMES = [udp_frame("10.0.0.1", "10.0.0.2", 9, 9, bytes([n + 1]) * (40 + n)) for n in range(6)]
T = 1_700_000_000
CLASSIC = {
    (order, magic): pcap(order, magic, [(T + n, n, frame) for n, frame in enumerate(FRAMES)])
    for order in "<>"
    for magic in (0xA1B2C3D4, 0xA1B23C4D)
}
NEW = {
    order: section(order) + b"".join(enhanced(order, T * 10**6 + n, f) for n, f in enumerate(FRAMES)) for order in "<>"
}
ALL = [*CLASSIC.values(), *NEW.values()]
PAIRS = [(data, 24) for data in CLASSIC.values()] + [(data, 48) for data in NEW.values()]
"""With the bytes before the first packet."""


def frames(data: bytes) -> tuple[list[bytes], captures.Left]:
    """What is replayed of ``data``, and what is not."""
    left = captures.Left()
    return [data[s.start : s.start + s.length] for s in captures.walk(data, "x", left=left)], left


def strict_offset(data: bytes) -> int:
    """Where who wants all of it is told that it ends."""
    with pytest.raises(CaptureError) as caught:
        list(captures.walk(data, "x"))
    return caught.value.offset


def whole_before(data: bytes, cut: int) -> int:
    """Packets of a good capture that end at or before ``cut``."""
    return sum(span.end <= cut for span in captures.walk(data, "x"))


@pytest.mark.parametrize(("data", "first"), PAIRS)
def test_cut_at_every_byte(data: bytes, first: int) -> None:
    """What is whole is replayed, and the place is where the packet that is not begins."""
    ends = [first, *(span.end for span in captures.walk(data, "x"))]
    for cut in range(first, len(data)):
        got, left = frames(data[:cut])
        n = whole_before(data, cut)
        assert got == FRAMES[:n]
        if cut == ends[n]:
            assert left.end == -1
            continue
        assert left.end == ends[n]
        assert "file ends within" in left.why or "bytes are left" in left.why
        assert strict_offset(data[:cut]) == ends[n]


@pytest.mark.parametrize(("data", "first"), PAIRS)
@pytest.mark.parametrize("zeros", [1, 15, 16, 17, 4096, 70_000])
def test_zeros_behind_every_byte(data: bytes, first: int, zeros: int) -> None:
    """Of a file that was filled up none of the zeros is a packet.

    A packet may stay whose last bytes were not written: it cannot be told from one that ends in zeros.
    """
    ends = [first, *(span.end for span in captures.walk(data, "x"))]
    for cut in range(first, len(data), 1 if zeros == 4096 else 11):
        got, left = frames(data[:cut] + bytes(zeros))
        n = whole_before(data, cut)
        assert got[:n] == FRAMES[:n]
        assert all(any(frame) for frame in got if frame or zeros > 16)  # 16 are an empty frame's header
        if cut == ends[n]:
            assert len(got) == n and left.end == cut and left.why
        assert len(got) <= n + 1


def test_a_frame_of_zeros_at_the_end_is_a_frame() -> None:
    """Only where a header of zeros stands behind it was it never written; an empty frame has a time."""
    for last in (bytes(60), b""):
        got, left = frames(pcap("<", 0xA1B2C3D4, [(T, 0, FRAMES[0]), (T, 1, last)]))
        assert got == [FRAMES[0], last] and left.end == -1
        got, left = frames(pcap("<", 0xA1B2C3D4, [(T, 0, FRAMES[0]), (T, 1, last)]) + bytes(16))
        assert got == FRAMES[:1] and left.end == 24 + 16 + len(FRAMES[0])
    assert frames(section("<") + enhanced("<", T, bytes(60)))[0] == [bytes(60)]


@pytest.mark.parametrize("data", ALL)
def test_a_wrong_length_in_the_middle_is_damage(data: bytes) -> None:
    """Also where it leads out of the file: packets stand behind it.  The place is that of the packet."""
    spans = list(captures.walk(data, "x"))
    classic = data in CLASSIC.values()
    order = "<" if data in (*[CLASSIC["<", m] for m in (0xA1B2C3D4, 0xA1B23C4D)], NEW["<"]) else ">"
    for n in range(len(FRAMES) - 1):
        at = spans[n - 1].end if n else (24 if classic else 48)
        for length in (4, len(FRAMES[n]) - 4, len(FRAMES[n]) + 4, 4_000, 60_000, 1 << 31):
            broken = bytearray(data)
            if classic:
                broken[at + 8 : at + 16] = struct.pack(order + "II", length, length)
            else:
                broken[at + 4 : at + 8] = struct.pack(order + "I", length)
            with pytest.raises(CaptureError) as caught:
                frames(bytes(broken))
            assert caught.value.offset >= at


def test_zeros_in_the_middle_are_damage() -> None:
    """A hole where packets should be; one that begins in a packet is found behind it."""
    data = CLASSIC["<", 0xA1B2C3D4]
    second = 24 + 16 + len(FRAMES[0])
    with pytest.raises(CaptureError, match="packet 2 is zeros, and something stands behind it") as caught:
        frames(data[:second] + bytes(4096) + data[second:])
    assert caught.value.offset == second
    hole = section("<") + enhanced("<", 1, FRAMES[0]) + bytes(4096) + enhanced("<", 2, FRAMES[1])
    with pytest.raises(CaptureError) as caught:
        frames(hole)
    assert caught.value.offset == len(section("<") + enhanced("<", 1, FRAMES[0]))


def test_what_is_not_even_a_header_is_refused() -> None:
    """There is nothing in it to replay."""
    for data in (CLASSIC["<", 0xA1B2C3D4][:23], NEW["<"][:27], NEW["<"][:20] + bytes(40)):
        with pytest.raises(CaptureError):
            frames(data)
    for data, first in PAIRS:
        assert frames(data[:first]) == ([], captures.Left())
    assert frames(NEW["<"][:30]) == ([], captures.Left(28, "2 bytes are left: a pcapng block has at least 12"))


def test_a_cut_block_that_holds_no_packet() -> None:
    """Names, statistics: whatever was written last."""
    data = NEW["<"] + block("<", 5, bytes(range(1, 61)))
    for cut in range(len(NEW["<"]) + 1, len(data)):
        got, left = frames(data[:cut])
        assert got == FRAMES and left.end == len(NEW["<"])


def test_one_warning_says_where_it_ends(tmp_path: Path) -> None:
    """The stage replays what is whole, and its segment is sized by that."""
    ways = (INBOUND, OUTBOUND, INBOUND)
    out = header(["a"]) + b"".join(
        record(f, (T + n) * 10**9, w) for n, (f, w) in enumerate(zip(FRAMES[:3], ways, strict=True))
    )
    (tmp_path / "whole").write_bytes(out)
    path = tmp_path / "cut"
    path.write_bytes(out + record(FRAMES[3], (T + 3) * 10**9, OUTBOUND)[:-7])
    with capture_logs() as logs, Rig("netdev-pcap", {"read": str(path), "pace": "asap", "patience_ms": 1}) as rig:
        rig.command(layout.CMD_CLOCK, 1)
        rig.run(10)
        rig.run(10**10)
        assert rig.take("receive") == [FRAMES[0], FRAMES[2]]
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert warning["event"] == "the capture ends too early: what is whole is replayed"
    assert (warning["offset"], warning["packets"]) == (len(out), 3)
    assert warning["reason"].startswith("the file ends within a block: ")
    assert KIND.words_of({"read": str(path)}) == KIND.words_of({"read": str(tmp_path / "whole")})
    assert captures.first_timestamp(path) == T * 10**9


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_a_recorder_goes_on_before_the_zeros(tmp_path: Path, suffix: str) -> None:
    """`whole_length` is where a file of ours that was filled up is cut."""
    classic = suffix == "pcap"
    out = header(["a"], classic=classic) + record(FRAMES[0], T * 10**9, classic=classic)
    (tmp_path / "x").write_bytes(out + bytes(4096))
    assert captures.whole_length(tmp_path / "x") == len(out)


@given(st.sampled_from(ALL), st.integers(0), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4))
def test_whatever_is_wrong_is_said_or_an_error(data: bytes, cut: int, changes: list[tuple[int, int]]) -> None:
    """Every frame lies within the file, and before the place at which it is said to end."""
    blob = bytearray(data)
    for at, value in changes:
        blob[at % len(blob)] = value
    blob = blob[: cut % (len(blob) + 1)]
    left, spans, offset = captures.Left(), list[captures.Span](), 0
    try:
        for span in captures.walk(bytes(blob), "x", left=left):
            spans.append(span)
    except CaptureError as error:
        offset = error.offset
    assert 0 <= offset <= len(blob)
    end = left.end if left.end >= 0 else len(blob)
    assert all(s.length >= 0 and 0 <= s.start <= s.start + s.length <= s.end <= end for s in spans)
