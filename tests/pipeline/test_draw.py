"""A graph as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import draw
from pipeline.config import load
from pipeline.graph import StageNode, main, plan
from stages import catalog
from tests.pipeline.figure import HEAD, figure

ROOT = Path(__file__).resolve().parents[2]


def test_the_terminal_view_shows_chains_stages_and_rings(capsys):
    """The text has each chain in order, each stage, each ring with its size, and the total."""
    assert main([str(ROOT / "examples/primary-stream.toml")]) == 0
    shown = capsys.readouterr().out
    assert "rx  hn0.guest ─► redire1 ─► redire0 ─► hn0.network" in shown
    assert "comp0.notify_out ─► outside, outside ─► comp0.notify_in" in shown
    assert "listens at /run/colo-vm/primary-hn0.sock" in shown
    graph = plan(load(ROOT / "examples/primary-stream.toml"))
    assert all(f"\n  {ring.id} " in shown for ring in graph.rings)
    assert all(f"\n  {stage.id} " in shown for stage in graph.stages)


@pytest.mark.parametrize("form", ["--dot", "--mermaid"])
def test_drawings_have_a_node_a_stage_and_an_arrow_a_ring(form, capsys):
    """Nothing is left out of the Graphviz and Mermaid texts."""
    assert main([str(ROOT / "examples/primary.toml"), form]) == 0
    shown = capsys.readouterr().out.splitlines()
    graph = plan(load(ROOT / "examples/primary.toml"))
    arrow = "->" if form == "--dot" else "-->"
    assert sum(arrow in line for line in shown) == len(graph.rings)
    nodes = [line for line in shown if arrow not in line and ("[label=" in line or '["' in line)]
    assert len(nodes) == len(graph.stages)


def test_shared_processes_are_drawn_as_groups():
    """A process of several stages is a cluster with its name."""
    graph = figure({'name = "t"': 'name = "t"\nplacement = "shared"'})
    assert 'label="pipeline";' in draw.dot(graph)
    assert 'subgraph p0["pipeline"]' in draw.mermaid(graph)


def test_an_address_says_what_an_endpoint_is_joined_to():
    """Each backend is shown with what tells it from others."""
    graph = figure({"[netdev.hn1]": '[netdev.hn1]\nnetwork = { backend = "tap", ifname = "x", netns = "y" }'})
    assert draw.address(graph.by_id["hn1.network"]) == "tap x in y"
    assert draw.address(graph.by_id["hn0.guest"]) == "nothing"
    assert draw.address(graph.by_id["hn0.network"]).startswith("reads /")
    params = {"host": "::1", "port": 9, "path": None, "server": False}
    kind = catalog.kind("chardev-socket")
    stage = StageNode(id="c", kind=kind, params=params, inputs={}, outputs={}, process="c")
    assert draw.address(stage) == "connects to [::1]:9"


def test_a_wrong_config_is_listed_on_stderr_and_ends_with_2(tmp_path, capsys):
    """Nothing is printed but the mistakes."""
    wrong = tmp_path / "config.toml"
    wrong.write_text(HEAD)
    assert main([str(wrong)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"{wrong}: 1 mistake\n  netdev: found nothing;")
