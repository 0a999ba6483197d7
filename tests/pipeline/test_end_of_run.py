"""The end of a finite input, with real processes: it comes by itself, also under kills and stops."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

from ring import layout
from ring.ledger import StageSegment
from tests.pipeline.running import Running, until


def capture(path: Path, frames: int) -> None:
    """A pcap file (nanoseconds, Ethernet), a frame each 2 ms, and after every 100 a pause of an hour."""
    data = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    for i in range(frames):
        packet = bytes(12) + b"\x08\x06" + b"%08d" % i + bytes(40)  # ARP by its type: it belongs to no flow
        data += struct.pack("<IIII", 1000 + i // 100 * 3600, i % 100 * 2_000_000, len(packet), len(packet)) + packet
    path.write_bytes(data)


def an_hour_passes(it: Running) -> None:
    """By the clock of the capture: so a run lasts as long as a test needs, and no longer."""
    source = StageSegment.attach(f"{it.name}.s.hn0.network")
    source.w[layout.CMD_CLOCK] -= 3600 * 10**9
    source.close()


PCAP = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.c0]
backend = "ring"
[netdev.hn0]
network = {{ backend = "pcap", read = "{folder}/in.pcap", pace = "recorded" }}
guest = {{ backend = "null" }}
[netdev.hn1]
network = {{ backend = "null" }}
guest = {{ backend = "null" }}
[filter.m0]
type = "filter-mirror"
netdev = "hn0"
queue = "tx"
outdev = "c0"
[filter.r0]
type = "filter-redirector"
netdev = "hn1"
queue = "tx"
indev = "c0"
"""


def test_a_finite_input_ends_by_itself_and_adds_up_also_under_kills(tmp_path: Path):
    """All frames of the capture arrive twice, exit 0, a summary that balances, nothing left."""
    capture(tmp_path / "in.pcap", 600)
    with Running(tmp_path, config=PCAP) as it:
        it.running()
        for epoch in (2, 3):
            for name in ("m0", "r0"):
                os.kill(it.stage(name)["pid"], signal.SIGKILL)
                an_hour_passes(it)
                it.back(name, epoch)
        an_hour_passes(it)
        assert it.end() == 0
        assert "everything adds up" in it.out
        rows = {words[0]: words[1:] for line in it.out.splitlines() if (words := line.split())}
        assert rows["m0"] == ["filter-mirror", "2", "600", "1,200"]
        assert rows["r0"][:3] == ["filter-redirector", "2", "600"]
        assert it.left() == []


def test_a_finite_run_says_that_it_waits_for_a_stopped_stage(tmp_path: Path):
    """Once; and ends when that one has been started."""
    capture(tmp_path / "in.pcap", 200)
    with Running(tmp_path, config=PCAP) as it:
        it.running()
        assert it.ask("stop", id="m0")["ok"]
        an_hour_passes(it)

        def said() -> int:
            return [e["event"] for e in it.events()].count("waiting for m0, which is stopped")

        until(said, "it says so")
        looks = it.status(), it.status()
        assert looks[-1]["state"] == "RUNNING"
        assert said() == 1
        assert it.ask("start", id="m0")["ok"]
        assert it.end() == 0
        assert said() == 1
        assert "everything adds up" in it.out


def test_a_capture_that_is_none_is_a_clear_error(tmp_path: Path):
    """Exit 2 before anything is made."""
    (tmp_path / "in.pcap").write_bytes(b"no capture at all, not even close to one")
    with Running(tmp_path, config=PCAP) as it:
        assert it.end() == 2
        assert "in.pcap" in it.text()
        assert it.left() == []
