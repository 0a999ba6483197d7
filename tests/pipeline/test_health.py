"""Health: what is not as it should be, in the first lines of ``status``, and its exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import control, health
from tests.pipeline.running import Running, until

NOBODY = "not connected: listens at /s"


def stage(name: str, **more: Any) -> dict[str, Any]:
    """A stage that is well, but for ``more``."""
    return {"id": name, "state": "RUNNING", "pid": 7, "status": "on", "reason": "", "link": "", "notes": []} | more


def test_nothing_to_say_is_healthy():
    """A counter that stands still has no say, nor has why the last process ended."""
    rates = {"m0": {"dropped_no_peer": 0.0, "tx_in_frames": 9.0}}
    assert health.reasons("RUNNING", [stage("m0", reason="killed")], rates, {"m0": ("dropped_no_peer",)}) == []


@pytest.mark.parametrize(
    ("it", "said"),
    [
        (stage("m0", status="off"), "m0: off"),
        (stage("m0", state="STOPPED", reason="left"), "m0: STOPPED"),
        (stage("m0", state="BACKOFF", reason="killed by SIGKILL"), "m0: BACKOFF, killed by SIGKILL"),
        (
            stage("m0", state="STARTING", link=NOBODY),
            f"m0: STARTING, {NOBODY}",
        ),
        (stage("m0", state="STARTING", pid=None), "m0: STARTING, kernels are loaded or compiled for it"),
        (stage("m0", link=NOBODY), f"m0: {NOBODY}"),
        (stage("m0", notes=["lost", "the secondary is lost"]), "m0: the secondary is lost"),
    ],
)
def test_each_reason_has_its_line(it: dict[str, Any], said: str):
    """Of a stage that does not run, not what follows from that."""
    assert health.reasons("RUNNING", [it], {}, {}) == [said]


def test_a_loss_that_goes_on_is_a_reason_and_the_gravest_comes_first():
    """By what the kinds declare."""
    rates = {"m0": {"dropped_no_peer": 1234.5}}
    assert health.reasons("DRAINING", [stage("m0")], rates, {"m0": ("dropped_no_peer",)}) == [
        "the pipeline is DRAINING",
        "m0: dropping: dropped_no_peer 1,234.5/s",
    ]


def test_status_says_it_first_and_by_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nobody is connected, then all are, then a filter is off and a stage stopped."""
    with Running(tmp_path) as it:
        it.running()
        assert control.main([it.name, "status"]) == 1
        head = capsys.readouterr().out.splitlines()[:4]
        assert head[0] == f"{it.name}: RUNNING, not healthy"
        assert f"c0: not connected: listens at {tmp_path}/c0" in head
        with it.connect("net"), it.connect("guest"), it.connect("c0"):
            until(lambda: it.status()["health"] == "healthy", "healthy")
            assert control.main([it.name, "status", "--json"]) == 0
            assert control.main([it.name, "set", "m0", "status=off"]) == 0
            assert control.main([it.name, "stop", "c0"]) == 0
            capsys.readouterr()
            assert control.main([it.name, "status"]) == 1
            assert capsys.readouterr().out.splitlines()[:3] == [
                f"{it.name}: RUNNING, not healthy", "c0: STOPPED", "m0: off",
            ]  # fmt: skip
