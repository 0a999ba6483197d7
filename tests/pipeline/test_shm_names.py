"""Names in /dev/shm that vanish while a pipeline runs: nothing that runs needs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from pipeline.shm_names import LOOK_NS, Names, likely_reason
from ring import segment
from tests.pipeline.running import Running, frame, read_frames, until
from tests.ring.names import fresh

VANISHED = "names in /dev/shm have vanished: what runs goes on without them"
ROBBED = "names in /dev/shm lead to others' segments now"


def test_without_names_stages_and_fork_servers_come_back(tmp_path: Path):
    """All names removed; a stage, the fork server, a stage again killed: no frame is lost; one line says why."""
    with Running(tmp_path) as it:
        it.running()
        with it.connect("net") as net, it.connect("guest") as guest:
            for path in Path("/dev/shm").glob(f"{it.name}.*"):
                path.unlink()
            sent = [b"frame %d" % i for i in range(30)]
            for epoch in (2, 3):
                net.sendall(b"".join(map(frame, sent[(epoch - 2) * 10 : (epoch - 1) * 10])))
                os.kill(it.stage("m0")["pid"], signal.SIGKILL)
                it.back("m0", epoch)
                if epoch == 2:
                    os.kill(it.forkserver(), signal.SIGKILL)
                    until(lambda: any("fork server died" in e["event"] for e in it.events()), "noticed")
            net.sendall(b"".join(map(frame, sent[20:])))
            assert read_frames(guest, 30) == sent
        (line,) = until(lambda: [e for e in it.events() if e["event"] == VANISHED], "told")
        assert line["names"] == len(it.status()["rings"]) + len(it.status()["stages"])
        assert line["made_again"] == 0
        assert line["lost"] == "no supervisor can take over from this one if it is killed"
        assert it.ask("stop")["ok"]
        assert it.end() == 0
        assert it.left() == []


@pytest.fixture
def kept() -> Iterator[segment.Segment]:
    """A segment with a name."""
    made = segment.Segment.create(fresh(), 4096)
    yield made
    made.unlink()
    made.close()


def told(names: Names, *times: int) -> list[str]:
    """The lines of looks at so many times."""
    with structlog.testing.capture_logs() as lines:
        for now in times:
            names.look(now)
    return [line["event"] for line in lines]


def test_a_name_is_made_again_while_another_is_left(kept: segment.Segment):
    """Somebody moved it: the kernel links it anew, and it is the same segment."""
    names, away = Names({kept.name: kept}, structlog.get_logger()), f"/dev/shm/{kept.name}.away"
    assert told(names, 0) == []
    os.rename(f"/dev/shm/{kept.name}", away)
    try:
        assert kept.named() is None
        assert told(names, 1) == []  # not yet time to look
        assert told(names, LOOK_NS) == [VANISHED]
        assert kept.named() is True
    finally:
        os.unlink(away)


def test_a_loss_is_told_once_and_for_good(kept: segment.Segment):
    """The last name is gone: the kernel links such a file no more."""
    names = Names({kept.name: kept}, structlog.get_logger())
    segment.unlink(kept.name)
    assert told(names, 0, LOOK_NS, 2 * LOOK_NS) == [VANISHED]
    assert kept.named() is None


def test_a_name_that_somebody_else_made_since_is_left_alone(kept: segment.Segment):
    """It is told, and stays at the end."""
    segment.unlink(kept.name)
    other = segment.Segment.create(kept.name, 8192)
    try:
        assert told(Names({kept.name: kept}, structlog.get_logger()), 0, LOOK_NS) == [ROBBED]
        assert kept.unlink() is False
        assert other.named() is True
    finally:
        assert other.unlink()
        other.close()


@pytest.mark.parametrize(
    ("uid", "systemd", "word"),
    [(1000, True, "RemoveIPC=no"), (0, True, "tmpfiles.d"), (999, True, "tmpfiles.d"), (1000, False, "tmpfiles.d")],
)
def test_the_likely_reason_is_the_one_that_this_user_can_meet(uid: int, systemd: bool, word: str):
    """logind leaves root and system users alone, and is not everywhere."""
    assert word in likely_reason(uid, systemd)
