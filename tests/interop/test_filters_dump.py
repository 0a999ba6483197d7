"""filter-dump, QEMU's and ours: the same frames, the same packets in the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.capture import reader as captures
from tests.interop.filters_feed import Both, Ours, Theirs, is_barrier, marked, needs_qemu, scenario
from tests.packets import arp_frame, tcp_frame, udp_frame

__all__ = ["scenario"]
pytestmark = needs_qemu
A, B = "198.51.100.9", "10.0.0.1"
SIZES = (60, 61, 95, 96, 97, 1514, 9014, 65_535)


def _packets(path: Path) -> list[tuple[bytes, int]]:
    """What a file keeps of each packet, and how long it was; without barriers."""
    return [(p.data, len(p.data) + p.missing) for p in captures.read(path, cut=True) if not is_barrier(p.data)]


@pytest.mark.parametrize("maxlen", [96, 65_536])
@pytest.mark.parametrize("queue", ["tx", "rx", "all"])
def test_the_files_hold_the_same_packets(tmp_path: Path, queue: str, maxlen: int) -> None:
    theirs, ours = tmp_path / "theirs.pcap", tmp_path / "ours.pcap"
    frames = [marked("net", n, size) for n, size in enumerate(SIZES)]
    frames += [arp_frame(A, B), udp_frame(A, B, 53, 4000, b"q"), tcp_frame(A, B, 1, 80, payload=b"x" * 200)]
    qemu = Theirs([f"filter-dump,id=f0,queue={queue},file={theirs},maxlen={maxlen}"])
    params = {"netdev": "n", "file": str(ours), "maxlen": maxlen}
    with Both(qemu, Ours("filter-dump", queue, params=params)) as pair:
        for n, frame in enumerate(frames):
            pair.status(n != 3)
            assert pair.step("net", frame) == {"guest": [frame]}
            assert pair.step("guest", frame) == {"net": [frame]}
    found = _packets(ours)
    assert found == _packets(theirs)
    times = 2 if queue == "all" else 1
    assert found == [(f[:maxlen], len(f)) for n, f in enumerate(frames) if n != 3 for _ in range(times)]
