"""The summary adds up, says which equation does not, and knows no time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse
from pipeline.graph import Graph, plan
from pipeline.summary import summarise

CONFIG = """
[pipeline]
name = "primary"
[chardev.p]
backend = "socket"
path = "p"
[chardev.s]
backend = "socket"
path = "s"
[chardev.o]
backend = "socket"
path = "o"
[compare.comp0]
primary_in = "p"
secondary_in = "s"
outdev = "o"
"""


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return plan(parse(CONFIG, tmp_path / "config.toml"))


@pytest.fixture
def snapshot(graph: Graph) -> dict[str, Any]:
    counters = {stage.id: {c.name: 0 for c in stage.kind.all_counters if c is not None} for stage in graph.stages}
    counters["p"]["receive_frames"] = counters["comp0"]["primary_in_frames"] = 1000
    counters["s"]["receive_frames"] = counters["comp0"]["secondary_in_frames"] = 900
    counters["o"]["send_frames"] = counters["comp0"]["outdev_frames"] = 990
    counters["comp0"] |= {
        "released": 940, "released_at_checkpoint": 50, "held_primary": 10, "held": 10, "matched": 898,
        "dropped_at_checkpoint": 2, "divergences": 3, "diverged_payload": 1, "diverged_flags": 2, "checkpoints": 3,
    }  # fmt: skip
    return {
        "name": "primary",
        "state": "EXITED",
        "stages": [
            {"id": s.id, "type": s.type, "kind": s.kind.name, "pid": 0, "state": "EXITED", "epoch": 1, "restarts": 0,
             "uptime_s": 12.34, "cpu_percent": 0.0, "rss_bytes": 0}
            for s in graph.stages
        ],
        "rings": [
            {"id": r.id, "size": r.size, "used": 0, "producer": str(r.producer), "consumer": str(r.consumer),
             "head": 9, "tail": 9}
            for r in graph.rings
        ],
        "counters": counters,
    }  # fmt: skip


def test_a_run_that_adds_up(graph: Graph, snapshot: dict[str, Any]) -> None:
    made = summarise(graph, snapshot)
    assert made.balanced, made.text
    assert "everything adds up: 3 rings" in made.text
    assert "comp0: every primary packet is released or held: 1,000 (primary_in_frames 1,000) = 1,000 " in made.text
    assert "(released 940 + released_at_checkpoint 50 + held_primary 10)" in made.text
    assert "comp0: 3 divergences (flags 2, payload 1), 3 checkpoints" in made.text
    assert made.elapsed == "ran for 12.3 s"


def test_a_run_that_did_not_run_does_not_add_up(graph: Graph, snapshot: dict[str, Any]) -> None:
    """All equations hold where everything is 0: that is no success."""
    snapshot["counters"] = {name: dict.fromkeys(values, 0) for name, values in snapshot["counters"].items()}
    made = summarise(graph, snapshot, ran=False)
    assert made.balanced
    assert made.text.splitlines()[-1] == "nothing ran: no frame was moved"
    assert "adds up" not in made.text


def test_each_drop_reason_is_named(graph: Graph, snapshot: dict[str, Any]) -> None:
    text = summarise(graph, snapshot).text
    assert (
        "  comp0  dropped_at_checkpoint  2  secondary packets dropped because a checkpoint made the replicas equal"
        in text
    )
    snapshot["counters"]["comp0"] |= {"dropped_at_checkpoint": 0, "matched": 900}
    assert "dropped: nothing" in summarise(graph, snapshot).text


def test_a_lost_frame_in_a_ring_is_named_with_its_numbers(graph: Graph, snapshot: dict[str, Any]) -> None:
    snapshot["counters"]["p"]["receive_frames"] = 1001
    made = summarise(graph, snapshot)
    assert made.wrong == (
        "ring p.receive → comp0.primary_in: put in 1,001, taken 1,000: 1 frames should be inside, but only 0 bytes are",
    )
    assert "DOES NOT ADD UP" in made.text


def test_frames_still_inside_are_counted(graph: Graph, snapshot: dict[str, Any]) -> None:
    snapshot["counters"]["p"]["receive_frames"] = 1001
    next(r for r in snapshot["rings"] if r["id"] == "p.receive")["used"] = 68
    made = summarise(graph, snapshot)
    assert made.balanced
    assert any(line.split()[-3:] == ["1,001", "1,000", "1"] for line in made.text.splitlines())


def test_bytes_inside_without_a_frame_are_wrong(graph: Graph, snapshot: dict[str, Any]) -> None:
    snapshot["rings"][0]["used"] = 68
    assert "but 68 bytes are still inside" in summarise(graph, snapshot).text


def test_a_frame_taken_twice_is_wrong(graph: Graph, snapshot: dict[str, Any]) -> None:
    snapshot["counters"]["o"]["send_frames"] = 991
    assert "1 frames more were taken than put in" in summarise(graph, snapshot).wrong[0]


def test_a_law_that_is_broken_is_named_with_its_numbers(graph: Graph, snapshot: dict[str, Any]) -> None:
    snapshot["counters"]["comp0"]["matched"] = 897
    (problem,) = summarise(graph, snapshot).wrong
    assert problem.startswith("comp0: every secondary packet is matched, held or dropped for a reason: 900 ")
    assert " ≠ 899 (matched 897 + dropped_at_checkpoint 2)" in problem


def test_a_stage_without_counters_is_wrong(graph: Graph, snapshot: dict[str, Any]) -> None:
    del snapshot["counters"]["o"]
    assert "o: its counters are missing" in summarise(graph, snapshot).wrong


def test_only_restarts_differ_after_kills(graph: Graph, snapshot: dict[str, Any]) -> None:
    other = copy.deepcopy(snapshot)
    for stage in other["stages"]:
        stage |= {"uptime_s": 99.0, "pid": 4242, "epoch": 5, "cpu_percent": 3.0}
    assert summarise(graph, other).text == summarise(graph, snapshot).text
    other["stages"][1]["restarts"] = 4
    lines = zip(summarise(graph, other).text.splitlines(), summarise(graph, snapshot).text.splitlines(), strict=True)
    assert [(a.split(), b.split()) for a, b in lines if a != b] == [
        (["comp0", "colo-compare", "4", "1,900", "990"], ["comp0", "colo-compare", "0", "1,900", "990"])
    ]
