"""Standard streams that are full, gone, stuck, closed or narrow, under real supervisors: traffic and exit status stay.

Each is a thing that happens: journald that is restarted, a log's full disk, a paused container runtime, Ctrl-S.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.outlet import STUCK
from tests.pipeline.running import PATIENCE_S, ROOT, Running, frame, read_frames, until
from tests.pipeline.test_outlet import Pipe

SMALL = "from pipeline import outlet; outlet.LIMIT = 4096; from pipeline import launch; raise SystemExit(launch.main())"
"""A supervisor for which few log lines are many."""

SUDDEN = "intensity = 0\nperiod_ms = 600000"


def traffic(it: Running) -> None:
    """Frames pass, the mirror is killed between them, and the control socket answers."""
    epoch = it.stage("m0")["epoch"]
    with it.connect("net") as net, it.connect("guest") as guest:
        until(lambda: all(r["connected"] for r in it.status()["rings"] if "c0" not in r["consumer"]), "connected")
        for part in (b"before", b"after"):
            sent = [part * 4 + b"%d" % i for i in range(50)]
            net.sendall(b"".join(map(frame, sent)))
            assert read_frames(guest, 50) == sent
            if part == b"before":
                os.kill(it.stage("m0")["pid"], signal.SIGKILL)
                it.back("m0", epoch + 1)


def stop(it: Running) -> int:
    """SIGTERM; the exit status."""
    os.kill(it.pid, signal.SIGTERM)
    return it.end()


def last(it: Running) -> str:
    """The last line of standard output."""
    return it.out.splitlines()[-1]


def events(text: str) -> list[dict[str, Any]]:
    """The log lines in a text."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# --- standard error -------------------------------------------------------------------------------------------------
def test_the_reader_of_the_log_leaves(tmp_path: Path):
    """EPIPE: lines are lost and counted, nothing else changes."""
    reading, writing = os.pipe()
    it = Running(tmp_path)
    it.streams = {"stderr": writing}
    with it:
        os.close(writing)
        it.running()
        os.close(reading)
        traffic(it)
        assert stop(it) == 0
        assert last(it).startswith("good: stopped by SIGTERM; ")
        assert last(it).endswith(" log lines were lost (Broken pipe)")
        assert it.left() == []


def test_the_disk_of_the_log_is_full(tmp_path: Path):
    """ENOSPC from the first line on."""
    it = Running(tmp_path)
    with open("/dev/full", "w") as full:
        it.streams = {"stderr": full}
        with it:
            it.running()
            traffic(it)
            assert stop(it) == 0
            assert last(it).endswith(" log lines were lost (No space left on device)")
            assert it.left() == []


@pytest.mark.parametrize("comes_back", [True, False])
def test_nobody_reads_the_log(tmp_path: Path, comes_back: bool):
    """A full pipe holds neither stages nor the supervisor; what was lost is told when it is read again."""
    full, it = Pipe(), Running(tmp_path)
    it.program, it.streams = ["-c", SMALL], {"stderr": full.writing}
    with it:
        it.running()
        traffic(it)
        for i in range(60):
            assert it.ask("set", id="m0", status=("on", "off")[i % 2])["ok"]
        if comes_back:
            until(lambda: b"log lines were lost" in full.read(), "it is told")
            assert it.ask("set", id="m0", status="on")["ok"]
            until(lambda: full.read().rstrip().endswith(b"}") and b"status set" in full.read().splitlines()[-1], "on")
        assert stop(it) == 0
        assert f" log lines were lost ({STUCK})" in last(it)
        assert it.left() == []
    if comes_back:
        found = events(full.read().decode())
        lost = next(e for e in found if e["event"] == "log lines were lost")
        assert (lost["level"], lost["reason"]) == ("warning", STUCK)
        assert lost["count"] == sum(lost["of"].values()) > 30
        assert lost["of"]["supervisor"] > 30
        assert f"{lost['count']} log lines were lost" in last(it)
        assert found[-1]["event"] == "all stages have left"
    full.close()


def test_stages_write_into_a_stuck_log_and_go_on(tmp_path: Path):
    """Their own lines, more than all queues take: a peer comes, says something and goes, each time two lines."""
    full, it = Pipe(), Running(tmp_path)
    it.program, it.streams = ["-c", SMALL], {"stderr": full.writing}
    with it:
        it.running()
        for i in range(1, 8):
            with it.connect("c0") as peer:
                peer.sendall(frame(b"-" * 60))
            until(lambda i=i: it.status()["counters"]["c0"]["disconnects"] >= i, "it is noticed")
        traffic(it)
        until(lambda: b"log lines were lost" in full.read(), "it is told")
        lost = next(e for e in events(full.read().decode()) if e["event"] == "log lines were lost")
        assert lost["of"]["c0"] > 2
        assert stop(it) == 0
    full.close()


# --- standard output ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""},
    ],
    ids=["latin-1", "ascii", "C"],
)
def test_a_stream_without_the_characters_of_the_summary(tmp_path: Path, environment: dict[str, str]):
    """It gets the nearest that it has."""
    it = Running(tmp_path)
    it.environment = environment
    with it:
        it.running()
        assert stop(it) == 0
        assert "m0.tx_out > hn0.guest.send" in it.out or " > hn0.guest" in it.out
        assert it.out.isascii()
        assert last(it) == "good: stopped by SIGTERM"
        assert "cannot" not in it.text()


def test_the_disk_of_the_summary_is_full(tmp_path: Path):
    """One complaint; the exit status is the run's."""
    it = Running(tmp_path)
    with open("/dev/full", "w") as full:
        it.streams = {"stdout": full}
        with it:
            it.running()
            assert stop(it) == 0
    assert it.text().splitlines()[-1] == "the summary cannot be shown: No space left on device"
    assert it.text().count("cannot") == 1
    assert it.left() == []


@pytest.mark.parametrize("good", [True, False])
def test_the_reader_of_the_summary_has_gone(tmp_path: Path, good: bool):
    """``| true``; of a run that was given up the status is 1, as it would have been."""
    reading, writing = os.pipe()
    os.close(reading)
    it = Running(tmp_path, "" if good else SUDDEN)
    it.streams = {"stdout": writing}
    with it:
        os.close(writing)
        it.running()
        if not good:
            os.kill(it.stage("m0")["pid"], signal.SIGKILL)
        assert (stop(it) if good else it.end()) == (0 if good else 1)
    assert it.text().splitlines()[-1] == "the summary cannot be shown: Broken pipe"
    assert it.left() == []


def test_nobody_reads_the_summary(tmp_path: Path):
    """It waits for its reader, with nothing left behind; a signal ends that."""
    full, it = Pipe(), Running(tmp_path)
    it.streams = {"stdout": full.writing}
    with it:
        it.running()
        os.kill(it.pid, signal.SIGTERM)
        until(lambda: it.left() == [], "all is removed")
        until(lambda: "all stages have left" in it.text(), "the run has ended")
        assert stop(it) == 0
    assert it.text().splitlines()[-1] == "the summary cannot be shown: nobody reads it"
    full.close()


# --- closed ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("closes", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_like_dev_null(tmp_path: Path, closes: str):
    """No socket or segment ever gets their numbers."""
    it = Running(tmp_path)
    it.closes = closes
    with it:
        it.running()
        closed = [fd for fd, how in enumerate(("<&-", ">&-", "2>&-")) if how in closes.split()]
        for fd in closed:
            assert os.readlink(f"/proc/{it.pid}/fd/{fd}") == "/dev/null"
        for pid in (it.forkserver(), *it.pids().values()):
            kinds = [os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in range(3)]
            assert kinds == ["/dev/null", "socket", "socket"]
        traffic(it)
        assert stop(it) == 0
        if 1 not in closed:
            assert last(it).startswith("good: ")
        if 2 not in closed:
            assert it.text().endswith("}\n")
            assert "cannot" not in it.text()
        assert it.left() == []


@pytest.mark.parametrize("closes", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>/dev/full"])
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["pipeline.graph", "config.toml"], 0),
        (["pipeline.graph", "nowhere.toml"], 2),
        (["pipeline.control", "nobody", "status"], 2),
        (["pipeline.supervisor", "nowhere.toml"], 2),
        (["pipeline.control", "--frob"], 2),
        (["tools.explain", "samples/divergence.pcapng"], 0),
        (["tools.explain", "nowhere.pcapng"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_tool_says_the_same_by_its_status(closes: str, command: list[str], status: int):
    """Whatever becomes of its words; but a full disk under its output is a failure."""
    words = ["sh", "-c", f'exec "$@" {closes}', "sh", sys.executable, "-m", *command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == (2 if closes.startswith(">/dev/full") else status)
    assert b"Traceback" not in done.stdout + done.stderr


# --- a terminal -----------------------------------------------------------------------------------------------------
class Terminal:
    """One of 80 columns; ``stuck``: somebody has pressed Ctrl-S, and it has taken all that it takes."""

    def __init__(self, stuck: bool) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        os.set_blocking(self.master, False)
        self._read = b""
        if stuck:
            own = os.open(os.ttyname(self.slave), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            for size in (256, 1):
                while True:
                    try:
                        os.write(own, b" " * size)
                    except BlockingIOError:
                        break
            os.close(own)

    def read(self) -> str:
        """All that has been shown so far."""
        while True:
            try:
                self._read += os.read(self.master, 1 << 16)
            except OSError:
                return self._read.decode()

    def close(self) -> None:
        """Hang up."""
        os.close(self.master)
        os.close(self.slave)


@contextmanager
def viewed(it: Running, *, stuck: bool, log: bool = False) -> Iterator[Terminal]:
    """A pipeline with its live view in a terminal; ``log``: standard error goes to the file of the test."""
    terminal = Terminal(stuck)
    it.environment = {"TERM": "xterm"}
    it.streams = {"stdout": terminal.slave} | ({} if log else {"stderr": terminal.slave})
    with it:
        yield terminal
    terminal.close()


def test_a_terminal_that_is_stopped_holds_nothing(tmp_path: Path):
    """Ctrl-S: neither the view nor the log is waited for; Ctrl-Q: they go on."""
    it = Running(tmp_path)
    with viewed(it, stuck=True) as terminal:
        it.running()
        traffic(it)
        until(lambda: "RUNNING" in terminal.read() and "pkt/s" in terminal.read(), "the view is there")
        until(lambda: '"died"' in terminal.read(), "the log is there")
        os.kill(it.pid, signal.SIGTERM)
        until(lambda: "good: stopped by SIGTERM" in terminal.read(), "the last line")
        assert it.end() == 0


def test_a_terminal_that_is_stopped_for_good_does_not_keep_it_from_ending(tmp_path: Path):
    """All is removed; what is left is the summary, which a signal cuts short."""
    it = Running(tmp_path)
    with viewed(it, stuck=True):
        it.running()
        os.kill(it.pid, signal.SIGTERM)
        until(lambda: it.left() == [], "all is removed")
        assert stop(it) == 0


def test_a_log_that_goes_elsewhere_goes_there_under_the_view_too(tmp_path: Path):
    """``2>log`` in a terminal: lines are in the file, and not above the picture."""
    it = Running(tmp_path)
    with viewed(it, stuck=False, log=True) as terminal:
        it.running()
        until(lambda: "pkt/s" in terminal.read(), "the view is there")
        os.kill(it.pid, signal.SIGTERM)
        until(lambda: "good: stopped by SIGTERM" in terminal.read(), "the last line")
        assert it.end() == 0
        assert "running" in [e["event"] for e in it.events()]
        assert '"event"' not in terminal.read()
