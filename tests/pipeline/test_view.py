"""The live view draws a snapshot at any width, computes rates, and leaves the terminal as it was."""

from __future__ import annotations

import io
import re
import sys
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from pipeline import view
from pipeline.view import PERIOD_S, bar, run_view, short, totals


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can move its cursor, wherever the tests run."""
    monkeypatch.setenv("TERM", "xterm")


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def stage(name: str, kind: str, kind_type: str, state: str = "RUNNING") -> dict[str, Any]:
    return {
        "id": name, "type": kind_type, "kind": kind, "pid": 7, "state": state, "epoch": 3, "restarts": 2,
        "uptime_s": 1.5, "cpu_percent": 41.6, "rss_bytes": 1 << 20, "notes": [],
    }  # fmt: skip


def snapshot(frames: int = 0, stages: int = 1, used: int = 0) -> dict[str, Any]:
    mirrors = [f"m{i}" for i in range(stages)]
    counters = {m: {"tx_in_frames": frames, "tx_out_frames": frames, "dropped_no_peer": 2} for m in mirrors}
    counters["comp0"] = {"released": 1000, "released_at_checkpoint": 234, "held": 5, "checkpoints": 6, "divergences": 7}
    counters["rew0"] = {"checkpoints": 9}
    return {
        "name": "primary",
        "state": "RUNNING",
        "stages": [
            *(stage(m, "filter-mirror", "filter-mirror") for m in mirrors),
            stage("comp0", "colo-compare", "colo-compare", "BACKOFF"),
        ],
        "rings": [
            {"id": "x.y", "size": 4096, "used": used, "producer": "x", "consumer": "m0.tx_in", "head": 0, "tail": used}
        ],
        "counters": counters,
    }


def draw(data: dict[str, Any], width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    made = view.View(lambda: data, console, Clock())
    with console.capture() as got:
        console.print(made.draw(data, 100.0))
    return got.get()


def test_every_column_is_there_at_80() -> None:
    lines = draw(snapshot(frames=1234, used=2048)).splitlines()
    assert lines[0] == "primary RUNNING"
    assert lines[1].split() == ["stage", "type", "state", "ep/re", "pkt/s", "cpu%", "in", "out", "queue"]
    assert lines[2].split() == ["m0", "mirror", "RUNNING", "3/2", "0", "42", "1,234", "1,234", "███"]
    assert lines[3].split()[:3] == ["comp0", "compare", "BACKOFF"]
    assert lines[-1] == "released 1,234   held 5   checkpoints 6   divergences 7   dropped 2"


@pytest.mark.parametrize("width", [40, 60, 71, 72, 80, 91, 92, 132])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    data = snapshot(frames=10**12, used=4096)
    data["stages"][0]["id"] = "a-stage-with-a-name-that-is-far-too-long-for-any-column"
    lines = draw(data, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 5, "nothing wraps"


def test_a_small_terminal_shows_what_does_not_run() -> None:
    text = draw(snapshot(stages=30), height=12)
    assert len(text.splitlines()) <= 12
    assert "comp0" in text
    assert "… and 24 more stages, all RUNNING" in text


def test_the_rate_is_the_difference_of_two_snapshots() -> None:
    clock, frames = Clock(), [0, 500]
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    made = view.View(dict, console, clock)
    made.draw(snapshot(frames[0]), 100.0)
    with console.capture() as got:
        console.print(made.draw(snapshot(frames[1]), 100.5))
    assert got.get().splitlines()[2].split()[4] == "1,000"


def test_it_draws_at_most_four_times_a_second() -> None:
    clock, asked = Clock(), []
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)

    def data() -> dict[str, Any]:
        asked.append(clock.now)
        return snapshot()

    with run_view(data, console, clock) as made:
        for _ in range(100):
            made.refresh()
            clock.now += 0.01
    assert len(asked) == 4
    assert all(b - a >= PERIOD_S for a, b in pairwise(asked))


def test_the_terminal_is_restored_after_an_exception() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True)
    stdout, stderr = sys.stdout, sys.stderr

    def fails() -> None:
        with run_view(snapshot, console):
            assert sys.stderr is not stderr, "lines written meanwhile go above the view"
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fails()
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l"), "the cursor is visible again"


def test_a_first_snapshot_that_fails_restores_the_terminal_too() -> None:
    stdout = sys.stdout
    console = Console(file=io.StringIO(), force_terminal=True)

    def broken() -> dict[str, Any]:
        raise LookupError("no stages yet")

    with pytest.raises(LookupError), run_view(broken, console):
        raise AssertionError("the block must not run")
    assert sys.stdout is stdout


def test_log_lines_stay_above_and_the_view_goes() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)
    with run_view(snapshot, console):
        print("m0 restarted", file=sys.stderr)
    assert "m0 restarted" in out.getvalue()
    after = out.getvalue().rpartition("divergences")[2]
    assert len(re.findall(r"\x1b\[2K", after)) >= 4, "its lines are erased at the end"


def test_checkpoints_of_a_secondary_are_its_rewriters() -> None:
    data = snapshot()
    data["stages"] = [data["stages"][0], stage("rew0", "filter-rewriter", "filter-rewriter")]
    assert totals(data)["checkpoints"] == 9


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (99_999, "99,999"), (99_999.6, "100.0k"), (123_456, "123.5k"), (999_960, "1.0M"), (5e9, "5.0G")],
)
def test_numbers_take_six_characters(n: float, text: str) -> None:
    assert short(n) == text
    assert len(text) <= 6


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.5, 0.999, 1.0, 7.0])
def test_a_bar_has_one_width(share: float) -> None:
    assert len(bar(share).plain) == 6
    assert (bar(share).plain.strip() == "") == (share == 0)
