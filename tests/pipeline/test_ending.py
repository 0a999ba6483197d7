"""The last line of a run: good or not, why, and what to type next."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import parse
from pipeline.ending import ending, python
from pipeline.graph import plan
from pipeline.summary import Summary
from tests.pipeline.running import Running
from tests.pipeline.test_summary import CONFIG

WRONG = """
from pipeline import launch, summary
real = summary.summarise
def summarise(graph, snapshot, **more):
    snapshot["counters"]["m0"]["tx_in_frames"] += 1
    return real(graph, snapshot, **more)
summary.summarise = summarise
raise SystemExit(launch.main())
"""
"""A supervisor that miscounts."""

FOLDER = "/run/a b/primary.divergences"


def line(found: int = 0, wrong: tuple[str, ...] = (), lost: int = 0, **run: Any) -> str:
    """The line of a compare's run with so many differences."""
    config = CONFIG.replace("[pipeline]\n", f'[pipeline]\nruntime_dir = "{Path(FOLDER).parent}"\n')
    graph = plan(parse(config, "/etc/colo/primary.toml"))
    counters = {"comp0": {"released": 1800, "released_by_rule": 67, "divergences": found}}
    made = SimpleNamespace(
        **{"ended": "stopped as asked", "ran": True, "called_off": False, "failure": "", "undelivered": {}, **run}
    )
    made.snapshot = lambda: {"counters": counters}
    told: Any = made
    return ending(graph, told, Summary("", "", wrong), lost=lost, why_lost="Broken pipe").replace(python(), "python")


def test_a_good_run_says_what_came_of_it_and_how_to_see_more() -> None:
    """Nothing to type where there is nothing to see."""
    assert line() == "good: stopped as asked; 1,867 packets released, 0 differences"
    told = f"(explained by: python -m tools.explain '{FOLDER}')"
    assert line(1) == f"good: stopped as asked; 1,867 packets released, 1 difference {told}"
    assert line(lost=12).endswith("0 differences; 12 log lines were lost (Broken pipe)")


def test_a_run_that_was_not_good_says_all_that_was_not_and_one_thing_to_do() -> None:
    """The first: what follows from it may mend itself."""
    told = line(failure="m0: 6 crashes within 10 s, the last: killed by SIGKILL", undelivered={"a.b": 1000})
    assert told == (
        "not good: m0 was given up: 6 crashes within 10 s, the last: killed by SIGKILL; "
        "1,000 bytes were not delivered: a.b 1,000; 1,867 packets released, 0 differences. "
        "Next: the log's lines of m0; for more of them python -m pipeline.supervisor /etc/colo/primary.toml "
        "--log-level debug"
    )
    assert "shutdown_ms" in line(undelivered={"a.b": 1000})
    told = line(wrong=("x", "y"))
    assert told.startswith("not good: the account does not add up, see above (2 wrong); ")
    assert "report it" in told


def test_what_is_typed_is_this_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``python`` where a shell finds the same one; else its path, from here if it lies below."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert python() == str(tmp_path / "bin" / "python")
    monkeypatch.chdir(tmp_path)
    assert python() == "bin/python"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert python() == "python"


def test_a_run_that_was_given_up_does_not_end_with_good_news(tmp_path: Path) -> None:
    """Everything may add up all the same."""
    with Running(tmp_path, "intensity = 0\nperiod_ms = 600000") as it:
        it.running()
        os.kill(it.stage("m0")["pid"], signal.SIGKILL)
        assert it.end() == 1
    *_, account, _, told = it.out.splitlines()
    assert account.startswith("everything adds up")
    assert told.startswith("not good: m0 was given up: 1 crash within 600 s, the last: killed by SIGKILL. Next: ")
    assert told.endswith(f" -m pipeline.supervisor {it.config} --log-level debug")


def test_an_account_that_does_not_add_up_is_exit_status_1(tmp_path: Path) -> None:
    """The log says it, the summary has the numbers, and the last line what to do."""
    it = Running(tmp_path, more="")
    it.program = ["-c", WRONG]
    it.config.write_text(it.config.read_text().replace("[supervisor]", 'note = "mind the gap"\n[supervisor]', 1))
    with it:
        it.running()
        os.kill(it.pid, signal.SIGTERM)
        assert it.end() == 1
    assert "DOES NOT ADD UP" in it.out
    *_, note, _, told = it.out.splitlines()
    assert note == "mind the gap"
    assert told.startswith("not good: the account does not add up, see above (")
    assert "the books do not balance: see the summary" in [e["event"] for e in it.events()]
