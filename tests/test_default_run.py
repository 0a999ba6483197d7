"""The default run, as a new user starts it: the sample through the whole figure, undisturbed and under kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import control
from tests.pipeline.running import TIMELESS

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600.0  # a cold cache on a busy machine compiles for minutes
COMPUTE = ("m0", "redire0", "redire1", "f1", "f2", "rew0", "comp0")


class Run:
    """One run of config.toml under a name of its own."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder = folder
        text = (ROOT / "config.toml").read_text().replace('"samples/', f'"{ROOT}/samples/')
        name = f'name = "sample-{os.getpid()}"\nruntime_dir = "{folder}"'
        config = folder / "config.toml"
        # A stage that gets no processor for a while is not dead: here only the test kills.
        patient = "[supervisor]\n" + "".join(f"{key} = {value}\n" for key, value in TIMELESS.items())
        config.write_text(text.replace('name = "sample"', name) + more + patient)
        self.socket = folder / f"sample-{os.getpid()}.sock"
        command = [sys.executable, "-m", "pipeline.supervisor", str(config), "--log-format", "json"]
        self.errors = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self.errors, stdin=subprocess.DEVNULL, text=True
        )

    def status(self) -> dict[str, Any]:
        """`status --json`, or {} while nobody answers."""
        try:
            return control.ask(str(self.socket), "status", timeout=PATIENCE_S)
        except (OSError, EOFError):
            return {}

    def end(self) -> str:
        """Wait for the end; the summary."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        self.errors.seek(0)
        self.log = [json.loads(line) for line in self.errors.read().splitlines() if line.startswith("{")]
        self.errors.close()
        return out

    def kill(self) -> None:
        """After a failure: leave nothing running."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def without_restarts(summary: str) -> list[str]:
    """The summary's lines, the stage table without its restarts column, without the line of the elapsed time."""
    lines = summary.splitlines()
    table = [i for i, line in enumerate(lines) if re.match(r"stage +type +restarts", line)]
    assert len(table) == 1, summary
    start = lines[table[0]].index("restarts")
    stop = start + len("restarts")
    end = lines.index("", table[0])
    cut = [line[:start] + line[stop:] if table[0] <= i < end else line for i, line in enumerate(lines)]
    return [line for line in cut if "elapsed" not in line and "sample-" not in line]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run]:
    """The summary of a run that nobody disturbed."""
    run = Run(tmp_path_factory.mktemp("undisturbed"))
    try:
        return run.end(), run
    finally:
        run.kill()


def test_it_ends_with_0_and_everything_adds_up(undisturbed: tuple[str, Run]) -> None:
    """Exit status 0, a summary that adds up, a few true divergences, nothing held."""
    summary, run = undisturbed
    assert run.process.returncode == 0, run.log
    assert "everything adds up" in summary
    divergences = re.search(r"comp0: (\d+) divergences", summary)
    assert divergences
    assert int(divergences[1]) >= 3
    assert [line["event"] for line in run.log if line["level"] == "error"] == []


def test_every_difference_is_explained(undisturbed: tuple[str, Run]) -> None:
    """Each divergence has one log line with flow, position and both sides."""
    summary, run = undisturbed
    explained = [line for line in run.log if line["event"].startswith("outputs differ")]
    found = re.search(r"comp0: (\d+) divergences", summary)
    assert found
    assert len(explained) == int(found[1])
    assert all(line["flow"].startswith("tcp ") and line["primary"] != line["secondary"] for line in explained)


def test_kill_9_changes_nothing_but_the_restarts(undisturbed: tuple[str, Run], tmp_path: Path) -> None:
    """Each compute stage is killed while packets flow; the summary is the same but for the restarts."""
    run = Run(tmp_path)
    try:
        killed = _kill_each_once(run)
        summary = run.end()
    finally:
        run.kill()
    assert run.process.returncode == 0, run.log
    assert without_restarts(summary) == without_restarts(undisturbed[0])
    died = [line["stage"] for line in run.log if line["event"] == "died"]
    assert sorted(died) == sorted(killed)
    assert set(killed) == set(COMPUTE)


def _kill_each_once(run: Run) -> list[str]:
    killed: list[str] = []
    limit = time.monotonic() + PATIENCE_S
    while set(killed) != set(COMPUTE) and run.process.poll() is None and time.monotonic() < limit:
        status = run.status()
        if status.get("state") != "RUNNING":
            time.sleep(0.01)
            continue
        counters = status["counters"]
        stages = {s["id"]: s for s in status["stages"]}
        victim = next(name for name in COMPUTE if name not in killed)
        # The next one as soon as packets flow and the one before is back.
        flowing = counters["m0"]["tx_in_frames"] > 20 * len(killed)
        if flowing and all(stages[name]["state"] == "RUNNING" for name in COMPUTE):
            os.kill(stages[victim]["pid"], signal.SIGKILL)
            killed.append(victim)
        time.sleep(0.01)
    return killed
