"""Capture files written: read back by us and by Wireshark's tools; a file that was cut goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.capture import reader as captures
from stages.capture.reader import INBOUND, OUTBOUND, UNKNOWN, CaptureError, Packet
from stages.capture.writer import Writer
from tests.packets import tcp_frame, udp_frame

T0 = 1_700_000_000_123_456_789
needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark (Debian package tshark) is not installed")


def some() -> list[Packet]:
    return [
        Packet(T0, tcp_frame("10.0.0.1", "10.0.0.2", 1000, 80), INBOUND, "client", ""),
        Packet(T0 + 1, udp_frame("10.0.0.2", "10.0.0.1", 53, 9, b"x"), OUTBOUND, "client", "a comment, ünïcode"),
        Packet(T0 + 999, udp_frame("10.0.0.2", "10.0.0.1", 53, 9, b"yz"), UNKNOWN, "primary", ""),
    ]


def write(path: Path, packets: list[Packet]) -> None:
    names = list(dict.fromkeys(p.interface for p in packets))
    with Writer(path, names) as out:
        for p in packets:
            out.write(p.data, p.ns, p.direction, p.comment, names.index(p.interface))


def test_pcapng_there_and_back(tmp_path: Path) -> None:
    """Times to the nanosecond, directions, interfaces and comments come back as they were written."""
    write(tmp_path / "a.pcapng", some())
    assert captures.read(tmp_path / "a.pcapng") == some()
    assert captures.first_timestamp(tmp_path / "a.pcapng") == T0


def test_pcap_there_and_back(tmp_path: Path) -> None:
    """A classic file keeps frames and nanoseconds, and has nothing else to keep."""
    write(tmp_path / "a.pcap", some())
    assert captures.read(tmp_path / "a.pcap") == [Packet(p.ns, p.data, UNKNOWN, "", "") for p in some()]


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_go_on_after_a_cut(tmp_path: Path, suffix: str) -> None:
    """A writer goes on from a known length; `whole_length` finds the last whole record of a cut file."""
    path = tmp_path / f"a.{suffix}"
    lengths = []
    with Writer(path, ["client"]) as out:
        for p in some():
            out.write(p.data, p.ns, p.direction)
            lengths.append(out.length)
    whole = path.read_bytes()
    for cut in range(lengths[0], lengths[1]):
        path.write_bytes(whole[:cut])
        assert captures.whole_length(path) == lengths[0]
    path.write_bytes(whole)
    with Writer(path, keep=lengths[0]) as out:
        out.write(some()[2].data, some()[2].ns)
        out.write(some()[1].data, some()[1].ns)
        out.truncate(out.length)
    assert [p.data for p in captures.read(path)] == [some()[0].data, some()[2].data, some()[1].data]


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng"])
def test_what_a_full_disk_took_in_part_is_taken_back(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file ends behind the last whole record, and the next one is written there."""
    path, write, full = tmp_path / f"x{suffix}", os.write, False

    def half(fd: int, data: bytes) -> int:
        nonlocal full
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        full = True
        return write(fd, data[:20])

    with Writer(path) as out:
        out.write(b"\1" * 60, 1)
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(CaptureError, match="No space left"):
            out.write(b"\2" * 60, 2)
        monkeypatch.undo()
        out.write(b"\3" * 60, 3)
    assert [p.data[0] for p in captures.read(path)] == [1, 3]


def test_a_file_that_lost_its_start(tmp_path: Path) -> None:
    """A file shorter than what was written before is begun anew, and the writer says so."""
    with Writer(tmp_path / "a.pcapng", keep=1000) as out:
        assert out.lost
    assert captures.read(tmp_path / "a.pcapng") == []


@needs_tshark
@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_wireshark_reads_what_we_write(tmp_path: Path, suffix: str) -> None:
    """tshark sees the same frames, times, directions, interfaces and comments."""
    path = tmp_path / f"a.{suffix}"
    write(path, some())
    fields = ["frame.time_epoch", "frame.len", "frame.packet_flags_direction", "frame.interface_name", "frame.comment"]
    command = ["tshark", "-r", str(path), "-T", "json", *(x for f in fields for x in ("-e", f))]
    found = [
        p["_source"]["layers"]
        for p in json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    ]
    assert [int(f["frame.len"][0]) for f in found] == [len(p.data) for p in some()]
    assert [f["frame.time_epoch"][0][-9:] for f in found] == [f"{p.ns % 10**9:09}" for p in some()]
    if suffix == "pcapng":
        assert [int(f.get("frame.packet_flags_direction", ["0"])[0], 0) for f in found] == [1, 2, 0]
        assert [f["frame.interface_name"][0] for f in found] == ["client", "client", "primary"]
        assert [f.get("frame.comment", [""])[0] for f in found] == ["", "a comment, ünïcode", ""]


@needs_tshark
@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "pcapng", "modpcap"])
def test_we_read_what_wireshark_writes(tmp_path: Path, kind: str) -> None:
    """editcap's own output of the same frames, in its formats."""
    write(tmp_path / "a.pcapng", some()[:2])
    subprocess.run(["editcap", "-F", kind, tmp_path / "a.pcapng", tmp_path / "b"], capture_output=True, check=True)
    got = captures.read(tmp_path / "b")
    assert [p.data for p in got] == [p.data for p in some()[:2]]
    unit = 1000 if kind in ("pcap", "modpcap") else 1
    assert [p.ns for p in got] == [p.ns // unit * unit for p in some()[:2]]
    if kind == "pcapng":
        assert got == some()[:2]


def test_a_writer_that_cannot_begin_leaves_nothing_open() -> None:
    """Nobody could close it."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises((OSError, CaptureError)):
        Writer("/dev/full")
    assert os.listdir("/proc/self/fd") == before
