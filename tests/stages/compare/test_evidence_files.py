"""The thread that writes a file for each difference: bounded in number, rate and time, and in nobody's way."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.capture import reader as captures
from stages.compare import evidence_files as evidence
from stages.compare.evidence_files import Evidence
from stages.compare.layout import events
from tests.stages.compare import evidence_words as words

SECOND = 1_000_000_000


class Log:
    """Collects warnings."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, event: str, **more: Any) -> None:
        self.lines.append({"event": event, **more})


@pytest.fixture
def log() -> Log:
    return Log()


class Clock:
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.ns = 100 * SECOND

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def make(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Evidence]]:
    made: list[Evidence] = []
    monkeypatch.setattr(evidence, "_CLOSE_S", 60.0)  # of a compare that must not hold the end of its pipeline up

    def one(folder: str = "d", keep: int = 64, clock: Any = time.monotonic_ns) -> Evidence:
        made.append(Evidence(str(tmp_path / folder), "comp0", keep, log, clock=clock))
        return made[-1]

    yield one
    for e in made:
        e.close()


def left_out(path: str) -> Any:
    return json.loads(captures.comments(path)[1]).get("left_out")


def offer(e: Evidence, number: int = 1) -> str | None:
    found = words.date()
    found.number = number
    event = found.event()
    event[events.TIME] = time.monotonic_ns()
    return e.offer(event, found.record())


def test_a_file_appears_for_its_owner_only(make: Callable[..., Evidence], tmp_path: Path, log: Log) -> None:
    """Mode 0600 in a folder of mode 0700; nothing unfinished stays; the name says compare, time and number."""
    e = make()
    path = offer(e, 17)
    e.close()
    assert path is not None and captures.comments(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "d").st_mode) == 0o700
    assert os.listdir(tmp_path / "d") == [os.path.basename(path)]
    prefix, stamp, number = os.path.basename(path).removesuffix(".pcapng").split("-")
    assert (prefix, number) == ("comp0", "17") and time.strptime(stamp.partition(".")[0], "%Y%m%dT%H%M%S")
    assert log.lines == []


def test_only_the_newest_are_kept_over_restarts(make: Callable[..., Evidence], tmp_path: Path) -> None:
    """Older files of this compare go, also those of a run before; other files stay."""
    folder = tmp_path / "d"
    folder.mkdir()
    others = ["comp0.pcapng", "comp01-20200101T000000.000Z-1.pcapng", "notes.txt"]
    old = [f"comp0-20200101T00000{i}.000Z-{n}.pcapng" for i, n in ((0, 10), (0, 9), (1, 1))]
    for name in others + old:
        (folder / name).touch()
    e = make(keep=3)
    first = offer(e, 1)
    e.close()
    assert first is not None
    # By time and number, not by text: number 9 of a moment is older than number 10.
    assert set(os.listdir(folder)) == {*others, old[0], old[2], os.path.basename(first)}
    again = make(keep=1)
    last = offer(again, 2)
    again.close()
    assert last is not None and set(os.listdir(folder)) == {*others, os.path.basename(last)}


def test_what_a_killed_process_left_unfinished_goes(make: Callable[..., Evidence], tmp_path: Path) -> None:
    """Only our own names, and only when they are old: another process may be writing."""
    folder = tmp_path / "d"
    folder.mkdir()
    stale, fresh = (folder / f".comp0-20200101T000000.000Z-{n}.pcapng.tmp" for n in (1, 2))
    for path in (stale, fresh):
        path.touch()
    os.utime(stale, (0, 0))
    e = make()
    offer(e)
    e.close()
    assert not stale.exists() and fresh.exists()


def test_a_storm_gets_one_file_a_second(make: Callable[..., Evidence]) -> None:
    """A few at once, then one each second; how many were left out stands in the next file."""
    clock = Clock()
    e = make(clock=clock)
    first = [offer(e, n) for n in range(20)]
    assert [path is not None for path in first] == [True] * 4 + [False] * 16
    clock.ns += SECOND
    later = [offer(e, 20 + n) for n in range(5)]
    assert [path is not None for path in later] == [True] + [False] * 4
    clock.ns += 60 * SECOND
    assert offer(e, 30) is not None
    e.close()
    assert later[0] is not None and left_out(later[0]) == 16
    assert first[0] is not None and left_out(first[0]) is None
    assert e.left_out == 0


def test_a_slow_disk_holds_nobody(make: Callable[..., Evidence], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the thread hangs in a write, offers are queued up to a bound, then left out; none waits."""
    go, hangs = threading.Event(), threading.Event()
    real = evidence.build

    def slow(*args: Any, **more: Any) -> Iterator[bytes]:
        hangs.set()
        assert go.wait(60)
        yield from real(*args, **more)

    monkeypatch.setattr(evidence, "build", slow)
    clock = Clock()
    e = make(clock=clock)
    offer(e, 0)
    assert hangs.wait(60)
    paths = []
    for n in range(1, 20):
        clock.ns += SECOND
        paths.append(offer(e, n))
    queued = [path for path in paths if path is not None]
    assert 0 < len(queued) < 19 and e.left_out == 19 - len(queued)
    go.set()
    e.close()
    assert all(os.path.exists(path) for path in queued)


def test_what_cannot_be_written_is_said_once(make: Callable[..., Evidence], tmp_path: Path, log: Log) -> None:
    """A folder that is a file: one line; when that is mended, files are written again."""
    (tmp_path / "d").touch()
    clock = Clock()
    e = make(clock=clock)
    lost = [offer(e, n) for n in range(3)]
    e.close()
    assert [(line["event"], line["path"]) for line in log.lines] == [
        ("cannot write what explains a difference", lost[0])
    ]
    (tmp_path / "d").unlink()
    clock.ns += 10 * SECOND
    path = offer(e, 9)
    e.close()
    assert path is not None and os.path.exists(path) and len(log.lines) == 1


def test_a_full_disk_leaves_nothing_half_written(
    make: Callable[..., Evidence], tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unfinished file is taken away and the reason told."""

    def full(*_: Any, **__: Any) -> Iterator[bytes]:
        yield b"the beginning"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(evidence, "build", full)
    e = make()
    offer(e)
    e.close()
    assert os.listdir(tmp_path / "d") == []
    assert [line["reason"] for line in log.lines] == ["No space left on device"]


def test_keep_0_writes_nothing(make: Callable[..., Evidence], tmp_path: Path) -> None:
    """No thread, no folder."""
    e = make(keep=0)
    threads = set(os.listdir("/proc/self/task"))
    assert offer(e) is None
    assert not (tmp_path / "d").exists() and set(os.listdir("/proc/self/task")) <= threads
