"""netdev-pcap's file: whole frames, each once, whenever it is killed; readable for Wireshark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stages.capture import reader as captures
from stages.capture.reader import INBOUND, OUTBOUND
from tests.stages.capture.test_replay import CLOCK, Bench, _nothing_left, capture, path, udp

__all__ = ["_nothing_left", "path"]  # fixtures


def killed(b: Bench, when: str) -> None:
    """Run one cycle of the shell up to ``when``, then restart as after a kill."""
    stage: Any = b.stage

    class Killed(Exception):
        pass

    def die(*_: Any) -> int:
        raise Killed

    if when == "written, not committed":
        stage.kernel = type("K", (), {"replay_open": staticmethod(stage.kernel.replay_open), "replay_commit": die})
    else:
        writer = stage._recorder._writer
        whole = writer.append

        def half(data: memoryview) -> None:
            whole(data[: len(data) // 2])
            raise Killed

        writer.append = half
    with pytest.raises(Killed):
        stage.do_work(CLOCK)
    b.restart()


@pytest.mark.parametrize("when", ["written, not committed", "half written"])
def test_killed_between_file_and_commit(tmp_path: Path, path: Path, when: str) -> None:
    """The file is cut to what was committed: no frame twice, none half; and nothing was emitted or counted twice."""
    capture(
        path,
        [
            (0, OUTBOUND, udp(0, 1)),
            (0, INBOUND, udp(0, 2, True)),
            (0, OUTBOUND, udp(0, 3)),
            (0, INBOUND, udp(0, 4, True)),
        ],
    )
    out = tmp_path / "out.pcapng"
    with Bench(read=path, write=out, record="both") as b:
        b.feed("send", udp(0, 1))
        killed(b, when)
        assert b.at(0) == [udp(0, 2, True)]
        b.feed("send", udp(0, 3))
        killed(b, when)
        assert b.at(0) == [udp(0, 4, True)]
        assert (b.counters()["awaited"], b.counters()["written"], b.counters()["receive_frames"]) == (2, 2, 2)
    assert [p.data for p in captures.read(out)] == [udp(0, 1), udp(0, 2, True), udp(0, 3), udp(0, 4, True)]


@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng"])
def test_write_only(tmp_path: Path, name: str) -> None:
    """Without ``read`` it is a sink: frames of every size land in the file, and it has nothing to give."""
    frames = [udp(0, n, size=20 + n) for n in range(9)] + [bytes(range(256)) * 256 + b"x" * k for k in range(4)] + [b""]
    with Bench(write=tmp_path / name, ring_size=1 << 21) as b:
        assert b.finished
        for _ in range(10):
            b.feed("send", *frames)
            b.run()
        assert b.counters()["written"] == 140
        assert b.rings["send"].used == 0
    assert [p.data for p in captures.read(tmp_path / name)] == frames * 10


def test_a_file_that_somebody_removed(tmp_path: Path) -> None:
    """A written file that is gone after a restart is begun anew, and is a whole capture again."""
    out = tmp_path / "out.pcapng"
    with Bench(write=out) as b:
        b.feed("send", udp(0, 1))
        b.run()
        out.unlink()
        b.restart()
        b.feed("send", udp(0, 2))
        b.run()
    assert [p.data for p in captures.read(out)] == [udp(0, 2)]


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark (Debian package tshark) is not installed")
@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng"])
def test_wireshark_reads_what_the_kernel_writes(tmp_path: Path, name: str) -> None:
    """tshark sees each frame with its length, and in pcapng its direction."""
    frames = [udp(0, n, size=20 + n) for n in range(9)]
    with Bench(write=tmp_path / name) as b:
        b.feed("send", *frames)
        b.run()
    command = [
        "tshark",
        "-r",
        str(tmp_path / name),
        "-T",
        "fields",
        "-e",
        "frame.len",
        "-e",
        "frame.packet_flags_direction",
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    found = [line.split("\t") for line in out if line]
    assert [int(f[0]) for f in found] == [len(f) for f in frames]
    if name.endswith("ng"):
        assert {int(f[1], 0) for f in found} == {OUTBOUND}
