"""Text on its way out: nobody waits for it, what is lost is counted and told, lines stay whole and in their order."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from pipeline import log, outlet
from pipeline.lines import Lines
from pipeline.outlet import STUCK, Lost, Outlet
from tests.pipeline.running import ROOT, until


@pytest.fixture(autouse=True)
def _structlog() -> Iterator[None]:
    """Set up, and as before afterwards."""
    log.configure("json", "info", sys.stderr)
    yield
    structlog.reset_defaults()


def told(lost: Lost) -> bytes:
    return f"lost {lost.count} of {dict(lost.by)}: {lost.reason}\n".encode()


class Pipe:
    """A pipe that is full; a test reads it when it likes."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        self.before = 0
        while True:
            try:
                self.before += os.write(self.writing, bytes(4096))
            except BlockingIOError:
                break
        os.set_blocking(self.writing, True)
        os.set_blocking(self.reading, False)
        self._read = b""

    def read(self) -> bytes:
        """All that has come so far, behind what it was filled with."""
        while True:
            try:
                self._read += os.read(self.reading, 1 << 16)
            except BlockingIOError:
                return self._read[self.before :]

    def close(self) -> None:
        """Both ends."""
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def full() -> Iterator[Pipe]:
    """One that nobody reads."""
    made = Pipe()
    yield made
    made.read()  # the outlet's thread stands in a write to it: not to another file of that number
    made.close()


def test_a_stuck_reader_costs_lines_and_is_told_of_them_when_it_goes_on(full: Pipe, monkeypatch: pytest.MonkeyPatch):
    """In their order: what was taken, how many were lost, what came then."""
    monkeypatch.setattr(outlet, "LIMIT", 40)
    out = Outlet(full.writing, told)
    for i in range(10):
        out.offer(b"line %d...\n" % i, "ab"[i % 2])
    assert not out.flush(0)
    assert (out.lost, out.reason) == (6, STUCK)
    until(lambda: full.read() and out.idle, "it is written")
    out.offer(b"then\n")
    until(lambda: b"then" in full.read(), "it goes on")
    lost = f"lost 6 of {{'a': 3, 'b': 3}}: {STUCK}"
    assert full.read().decode().splitlines() == [*(f"line {i}..." for i in range(4)), lost, "then"]


def test_a_reader_that_leaves_costs_lines_until_another_comes(tmp_path: Path):
    """A named pipe: the notice comes first."""
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.close(reading)
    out = Outlet(writing, told)
    for text in (b"one\n", b"two\n"):
        out.offer(text, "m0")
        assert out.flush(60)
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    out.offer(b"three\n", "m0")
    assert out.flush(60)
    assert os.read(reading, 4096) == b"lost 2 of {'m0': 2}: Broken pipe\nthree\n"
    os.close(reading)
    os.close(writing)


def test_a_line_of_which_the_disk_took_a_part_ends_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a full disk has of a line is not glued to the notice."""
    room, real = [5], os.write

    def disk(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        part, room[0] = data[: room[0]], max(room[0] - len(data), 0)
        return real(fd, part)

    monkeypatch.setattr(outlet.os, "write", disk)
    with open(tmp_path / "log", "wb", buffering=0) as file:
        out = Outlet(file.fileno(), told)
        out.offer(b"a long line\n")
        assert out.flush(60)
        room[0] = 1000
        out.offer(b"another\n")
        assert out.flush(60)
    written = (tmp_path / "log").read_text()
    assert written == "a lon\nlost 1 of {}: No space left on device\nanother\n"


def test_somebody_elses_nonblocking_stderr_is_waited_for(full: Pipe):
    """O_NONBLOCK belongs to the open file, and others may have set it: no line is lost for that."""
    os.set_blocking(full.writing, False)
    out = Outlet(full.writing, told)
    out.offer(b"x" * 100_000 + b"\n")
    assert not out.flush(0)
    until(lambda: full.read() and out.idle, "it is written")
    assert len(full.read()) == 100_001
    assert out.lost == 0


def test_lines_of_many_processes_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However long: each is one message, and one thread writes them."""
    monkeypatch.setattr(outlet, "LIMIT", 1 << 30)
    code = "import os,sys\nfor i in range(100):\n  os.write(2, (sys.argv[1] * 20_000 + '\\n').encode())"
    with open(tmp_path / "log", "wb") as file:
        lines = Lines(file.fileno())
        os.set_blocking(lines.theirs, True)  # here nothing is to be lost
        writers = [subprocess.Popen([sys.executable, "-c", code, w], stderr=lines.theirs) for w in "abc"]
        until(lambda: lines.pump() or all(w.poll() == 0 for w in writers), "they have written")
        lines.close()
    written = (tmp_path / "log").read_text().splitlines()
    assert sorted(written) == sorted(w * 20_000 for w in "abc" for _ in range(100))


def test_a_stage_never_waits_and_says_what_was_lost():
    """The supervisor is stopped, say: the first line that goes through is the notice."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    channel = log.Channel(theirs.fileno())
    channel.forked(pipeline="p", stage="m0")
    for i in range(5000):
        channel.write(f"{i}\n")
    ours.setblocking(False)

    def taken() -> list[str]:
        found = []
        while True:
            try:
                found.append(ours.recv(1 << 17).decode())
            except BlockingIOError:
                return found

    before = taken()
    assert before == [f"{i}\n" for i in range(len(before))]
    assert 100 < len(before) < 5000
    channel.write("then\n")
    notice, then = taken()
    said = json.loads(notice)
    assert (said["event"], said["count"], said["stage"]) == ("log lines were lost", 5000 - len(before), "m0")
    assert then == "then\n"
    channel.write("x" * 200_000 + "\n")
    (long,) = taken()
    assert len(long) == log.LONGEST and long.endswith("x...\n")
    ours.close()
    channel.write("nobody is there\n")  # no error
    theirs.close()


@pytest.mark.parametrize("stream", ["1", "2"])
def test_what_is_printed_in_a_stage_is_a_line_of_the_log(stream: str, tmp_path: Path):
    """By whatever library: it never mixes into the summary."""
    with open(tmp_path / "log", "wb") as file:
        lines = Lines(file.fileno())
        subprocess.run(
            [sys.executable, "-c", f"import os; os.write({stream}, b'hello\\n')"],
            stdout=lines.theirs, stderr=lines.theirs, cwd=ROOT, check=True,
        )  # fmt: skip
        lines.close()
    assert (tmp_path / "log").read_text() == "hello\n"
