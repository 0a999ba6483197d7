"""From a config to stages and rings."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import wiring
from pipeline.config import ConfigError, load, parse
from pipeline.graph import Graph, main, plan, shm_bytes
from stages import catalog
from stages.kind import CHARDEV, FILTER, NETDEV
from tests.pipeline.figure import HEAD, capture, figure

ROOT = Path(__file__).resolve().parents[2]


def joined(graph: Graph) -> list[str]:
    return [f"{ring.id} > {ring.consumer}" for ring in graph.rings]


def test_the_figure_of_the_design_document():
    """Both sides of the figure become exactly these rings."""
    assert joined(figure()) == [
        "hn0.network.receive > m0.tx_in",
        "m0.tx_out > hn0.guest.send",
        "hn0.guest.receive > redire1.rx_in",
        "redire1.rx_out > redire0.rx_in",
        "redire0.rx_out > hn0.network.send",
        "hn1.network.receive > f1.tx_in",
        "f1.tx_out > rew0.tx_in",
        "rew0.tx_out > hn1.guest.send",
        "hn1.guest.receive > rew0.rx_in",
        "rew0.rx_out > f2.rx_in",
        "f2.rx_out > hn1.network.send",
        "m0.outdev > f1.indev",
        "comp0.outdev > redire0.indev",
        "redire1.outdev > comp0.primary_in",
        "f2.outdev > comp0.secondary_in",
        "comp0.notify_out > notify0.send",
        "notify0.receive > comp0.notify_in",
    ]


def test_a_stage_knows_its_rings_by_port():
    """Inputs and outputs map ports, in the kind's order, to ring ids."""
    comp0 = figure().by_id["comp0"]
    assert comp0.inputs == {
        "primary_in": "redire1.outdev",
        "secondary_in": "f2.outdev",
        "notify_in": "notify0.receive",
    }
    assert comp0.outputs == {"outdev": "comp0.outdev", "notify_out": "comp0.notify_out"}
    assert (comp0.kind.name, comp0.type, comp0.process, comp0.idle) == (
        "colo-compare",
        "colo-compare",
        "comp0",
        "backoff",
    )


def test_params_are_the_table_with_defaults_and_what_was_derived():
    """What a stage is told is plain data, complete."""
    graph = figure()
    assert graph.by_id["m0"].params == {
        "netdev": "hn0",
        "queue": "tx",
        "status": "on",
        "position": "tail",
        "insert": "behind",
        "vnet_hdr_support": False,
        "outdev": "mirror0",
        "stall_timeout": 5000,
        "strip_mptcp": False,
    }
    assert graph.by_id["hn0.guest"].params == {}
    notify = graph.by_id["notify0"].params
    assert (notify["path"], notify["server"], notify["vnet"], notify["text"]) == ("/run/n.sock", True, False, True)


def test_a_netdev_without_filters_joins_its_sides():
    """An empty chain is one ring from side to side."""
    graph = plan(parse(HEAD + "[netdev.hn0]\n"))
    assert joined(graph) == ["hn0.network.receive > hn0.guest.send", "hn0.guest.receive > hn0.network.send"]


def test_position_and_insert_place_a_filter_as_qemu_does():
    """head, tail, and behind or before another one, in the order of definition."""
    placed = [("a", ""), ("b", "head"), ("c", "id=a"), ("d", "id=a"), ("e", "tail"), ("f", "id=b")]
    text = HEAD + "[netdev.n]\n"
    for name, position in placed:
        text += f'[filter.{name}]\ntype = "filter-rewriter"\nnetdev = "n"\n'
        text += f'position = "{position}"\n' if position else ""
    text += 'insert = "before"\n'
    filters = parse(text).filters
    assert "".join(wiring.chain(filters, "n")) == "fbadce"
    assert "".join(wiring.path(filters, "n", "rx")) == "ecdabf"


@pytest.mark.parametrize(
    ("queue", "inputs", "outputs"),
    [("tx", ["tx_in"], ["tx_out"]), ("rx", ["rx_in"], ["rx_out"]), ("all", ["tx_in", "rx_in"], ["tx_out", "rx_out"])],
)
def test_a_redirector_with_indev_alone_still_passes_its_direction(queue, inputs, outputs):
    """Its ports are those of its direction and indev."""
    text = HEAD + '[netdev.n]\n[chardev.c]\nbackend = "socket"\npath = "/c"\n'
    text += f'[filter.r]\ntype = "filter-redirector"\nnetdev = "n"\nindev = "c"\nqueue = "{queue}"\n'
    stage = plan(parse(text)).by_id["r"]
    assert list(stage.inputs) == [*inputs, "indev"]
    assert list(stage.outputs) == outputs


def test_every_backend_has_a_kind():
    """No config is right whose stage cannot be made, and a kind's name says where its table stands."""
    for table in (CHARDEV, NETDEV):
        assert {kind.name for kind in catalog.variants(table).values()} == {
            f"{table}-{variant}" for variant in catalog.variants(table)
        }
    assert all(kind.name == variant for variant, kind in catalog.variants(FILTER).items())


def test_an_interface_is_a_source_and_a_sink():
    """Both sides packet: what the stages get, rings with V where both have vnet_hdr."""
    sides = "".join(
        f'{s} = {{ backend = "packet", ifname = "{s[0]}", netns = "x", vnet_hdr = true }}\n'
        for s in ("network", "guest")
    )
    graph = plan(parse(HEAD + "[netdev.n]\n" + sides))
    assert [ring.vnet for ring in graph.rings] == [True, True]
    stage = graph.by_id["n.guest"]
    assert (stage.kind.name, stage.source, stage.sink) == ("netdev-packet", True, True)
    assert stage.params == {
        "ifname": "g", "netns": "x", "vnet_hdr": True, "record": None, "gated": False,
    }  # fmt: skip


def test_framing_follows_the_tap_on_chains_and_the_object_on_chardevs():
    """Chains carry V with a vnet_hdr TAP, chardev rings with vnet_hdr_support, notify rings never."""
    text = HEAD + '[netdev.n]\nnetwork = { backend = "tap", ifname = "a", vnet_hdr = true }\n'
    for name in ("p", "s", "o", "y"):
        text += f'[chardev.{name}]\nbackend = "socket"\npath = "/{name}"\n'
    text += (
        '[compare.c]\nprimary_in = "p"\nsecondary_in = "s"\noutdev = "o"\nnotify_dev = "y"\nvnet_hdr_support = true\n'
    )
    graph = plan(parse(text))
    assert {ring.id: ring.vnet for ring in graph.rings} == {
        "n.network.receive": True,
        "n.guest.receive": True,
        "p.receive": True,
        "s.receive": True,
        "c.outdev": True,
        "y.receive": False,
        "c.notify_out": False,
    }
    assert {name: graph.by_id[name].params["vnet"] for name in "psoy"} == {"p": True, "s": True, "o": True, "y": False}


def test_all_captures_share_the_first_time_in_any():
    """Each capture's clock starts with the earliest packet of all of them."""
    graph = figure()
    sides = [graph.by_id[name].params for name in ("hn0.network", "hn1.guest")]
    assert [side["clock_base_ns"] for side in sides] == [2_000_000_005] * 2
    assert [Path(side["read"]).name for side in sides] == ["client.pcap", "guest.pcap"]


def test_an_empty_capture_has_no_say_in_the_clock(tmp_path):
    """Beside two that hold packets it is as if it were not there: all replay from the first packet of any."""
    sides = []
    for name, frames in (("empty", b""), ("early", capture(3_000_000_005)), ("late", capture(5_000_000_000))):
        (tmp_path / name).write_bytes(frames or capture(0)[:24])  # a header and no frame
        sides.append(f'[netdev.{name}]\nnetwork = {{ backend = "pcap", read = "{tmp_path / name}" }}\n')
    graph = plan(parse(HEAD + "".join(sides)))
    assert graph.start_ns == 3_000_000_005
    bases = [graph.by_id[f"{name}.network"].params["clock_base_ns"] for name in ("empty", "early", "late")]
    assert bases == [graph.start_ns] * 3


def test_a_file_that_is_no_capture_is_a_mistake(tmp_path, capsys):
    """What is wrong with the file is said at its key, for each, and the exit status is 2."""
    for name, content in (("a", b"no capture"), ("b", capture(1)[:20])):
        (tmp_path / name).write_bytes(content)
    wrong = tmp_path / "config.toml"
    wrong.write_text(
        HEAD + '[netdev.n]\nnetwork = { backend = "pcap", read = "a" }\nguest = { backend = "pcap", read = "b" }\n'
    )
    assert main([str(wrong)]) == 2
    shown = capsys.readouterr().err
    assert "netdev.n.network.read: found" in shown
    assert "netdev.n.guest.read: found" in shown


def test_sources_sinks_and_finite():
    """A plan ends by itself where all frames from outside come from captures; notify text is no frame."""
    graph = figure()
    assert {stage.id for stage in graph.stages if stage.source} == {"hn0.network", "hn1.guest", "notify0"}
    assert {stage.id for stage in graph.stages if stage.sink} == {
        "hn0.network", "hn0.guest", "hn1.network", "hn1.guest", "notify0",
    }  # fmt: skip
    assert graph.finite
    tapped = figure({"[netdev.hn1]": '[netdev.hn1]\nnetwork = { backend = "tap", ifname = "x" }'})
    assert not tapped.finite
    assert not plan(parse(HEAD + "[netdev.n]\n")).finite


def test_placement_of_stages_in_processes():
    """Dedicated: each its own; shared: one; a stage's table overrides both, and its process shares cpus and idle."""
    assert list(figure().processes) == [stage.id for stage in figure().stages]
    moved = (
        '[stage.m0]\nprocess = "io"\n[stage."hn0.guest"]\nprocess = "io"\ncpus = [1]\nidle = "busy_spin"\n[pipeline]'
    )
    graph = figure({"[pipeline]": moved, 'name = "t"': 'name = "t"\nplacement = "shared"'})
    assert set(graph.processes) == {"io", "pipeline"}
    assert {(stage.id, stage.cpus, stage.idle) for stage in graph.processes["io"]} == {
        ("m0", (1,), "busy_spin"),
        ("hn0.guest", (1,), "busy_spin"),
    }


def test_shared_memory_adds_up():
    """The total is each ring with its header page and each stage's words, in whole pages."""
    graph = plan(parse(HEAD + "[netdev.n]\nnetwork = { backend = 'tap', ifname = 'a' }\n"))
    # The guest's side is null: nothing ever comes from it, so that ring is one page.
    stages = sum(-(-8 * stage.words // 4096) * 4096 for stage in graph.stages)
    assert shm_bytes(graph) == (1 << 20) + 4096 + 2 * 4096 + stages


def test_the_digest_is_stable_and_sees_what_changes_segments():
    """Equal plans have equal digests; another ring size, table, capture or way has another; a time has not."""
    base = figure().digest
    assert base == figure().digest
    assert 0 <= base < 1 << 63
    assert base == figure({"[compare.comp0]": "[compare.comp0]\ncompare_timeout = 9"}).digest
    for change in (
        {"1MiB": "2MiB"},
        {"[compare.comp0]": "[compare.comp0]\nmax_connections = 10"},
        {"[compare.comp0]": '[compare.comp0]\nhold_memory = "2MiB"'},
        {"client.pcap": "other.pcap"},
        {'queue = "tx"\noutdev': "outdev"},
    ):
        assert figure(change).digest != base


def test_the_digest_is_the_same_in_another_process():
    """No hash of this process (PYTHONHASHSEED) is in it."""
    graph = figure()
    code = f"from pipeline import config, graph; print(graph.plan(config.load({graph.config.path!r})).digest)"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs == [f"{graph.digest}\n"] * 2


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_every_example_is_right_and_fits_into_64_mb(path):
    """Each example loads and plans, and its shared memory fits into a container's default /dev/shm."""
    graph = plan(load(path))
    assert len(graph.rings) >= 8
    assert shm_bytes(graph) < 64 << 20


@pytest.mark.parametrize("pair", [("primary", "secondary"), ("primary-stream", "secondary-stream")])
def test_the_secondary_connects_to_what_the_primary_listens_on(pair):
    """Both files of a pair name the same links, in opposite roles."""
    primary, secondary = (load(ROOT / "examples" / f"{name}.toml") for name in pair)
    servers = {(c.host, c.port) for c in primary.chardevs.values() if getattr(c, "port", None) and c.server}
    clients = {(c.host, c.port) for c in secondary.chardevs.values() if getattr(c, "port", None) and not c.server}
    assert servers == clients == {("3.3.3.3", 9003), ("3.3.3.3", 9004)}


# --- any chain --------------------------------------------------------------------------------------------------


@st.composite
def chains(draw_value):
    """Text of a config with one netdev, up to eight filters, and chardevs that end outside."""
    text = HEAD + '[netdev.n]\nnetwork = { backend = "tap", ifname = "a" }\nguest = { backend = "tap", ifname = "b" }\n'
    kinds = draw_value(st.lists(st.sampled_from(["filter-mirror", "filter-redirector", "filter-rewriter"]), max_size=8))
    for i, kind in enumerate(kinds):
        queue = "all" if kind == "filter-rewriter" else draw_value(st.sampled_from(["tx", "rx", "all"]))
        text += f'[filter.f{i}]\ntype = "{kind}"\nnetdev = "n"\nqueue = "{queue}"\n'
        ends = {"filter-mirror": ["outdev"], "filter-rewriter": []}.get(kind)
        if ends is None:
            ends = draw_value(st.sampled_from([["indev"], ["outdev"], ["indev", "outdev"]]))
        for end in ends:
            text += f'{end} = "{end}{i}"\n'
        for end in ends:
            text += f'[chardev.{end}{i}]\nbackend = "socket"\npath = "/{end}{i}"\n'
    return text


def reachable(graph: Graph, start: str) -> set[str]:
    """Compute stages to which frames of ``start`` can come."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        here = todo.pop()
        for ring in graph.rings:
            after = ring.consumer.stage
            if ring.producer.stage == here and after not in seen and not graph.by_id[after].endpoint:
                seen.add(after)
                todo.append(after)
    return seen


def check_order(graph: Graph) -> None:
    """A ring's reader starts before its writer, unless it is a source, both read from each other, or nothing comes."""
    place = {stage.id: number for number, stage in enumerate(graph.stages)}
    for ring in graph.rings:
        writer, reader = graph.by_id[ring.producer.stage], graph.by_id[ring.consumer.stage]
        silent = writer.endpoint and not writer.source
        if silent or reader.source or writer.id in reachable(graph, reader.id):
            continue
        assert place[reader.id] < place[writer.id], ring.id
    assert [stage.source for stage in graph.stages] == sorted(stage.source for stage in graph.stages)


@settings(max_examples=60)
@given(chains())
def test_any_chain_is_wired_once_and_in_order(text):
    """Every ring has one producer and one consumer, tx is the order of definition, rx its reverse."""
    config = parse(text)
    graph = plan(config)
    ends = [ring.producer for ring in graph.rings] + [ring.consumer for ring in graph.rings]
    assert len(set(ends)) == len(ends)
    wired = {(s.id, port) for s in graph.stages for port in (*s.inputs, *s.outputs)}
    assert wired == set(ends)
    following = {ring.producer: ring.consumer for ring in graph.rings}
    for direction, start, end in (("tx", "network", "guest"), ("rx", "guest", "network")):
        met = []
        at = following[wiring.Port(f"n.{start}", "receive")]
        while at.port != "send":
            assert at.port == f"{direction}_in"
            met.append(at.stage)
            at = following[wiring.Port(at.stage, f"{direction}_out")]
        assert at.stage == f"n.{end}"
        expected = [name for name, f in config.filters.items() if f.queue in (direction, "all")]
        assert met == (expected if direction == "tx" else expected[::-1])
    check_order(graph)


def test_the_figure_starts_readers_before_writers():
    """Also where chardevs join two chains."""
    check_order(figure())


@given(st.permutations(range(6)), st.integers(2, 6))
def test_a_way_back_is_a_loop_and_a_way_on_is_none(order, length):
    """Redirectors that feed each other along the chain are taken; one that feeds an earlier one is a mistake."""
    used = order[:length]
    text = HEAD + "[netdev.n]\n"
    for i in range(6):
        text += f'[filter.f{i}]\ntype = "filter-redirector"\nnetdev = "n"\nqueue = "tx"\n'
        step = used.index(i) if i in used else None
        if step is None:
            text += f'outdev = "x{i}"\n[chardev.x{i}]\nbackend = "socket"\npath = "/x{i}"\n'
            continue
        text += f'outdev = "c{step}"\n' if step + 1 < length else ""
        text += f'indev = "c{step - 1}"\n' if step else ""
        text += f'[chardev.c{step}]\nbackend = "ring"\n' if step + 1 < length else ""
    # A frame from outdev re-enters behind its reader: going on for ever needs a step back, from f_b to f_a with a < b.
    back = any(later < earlier for earlier, later in itertools.pairwise(used))
    if back:
        with pytest.raises(ConfigError, match="a loop: "):
            parse(text)
    else:
        check_order(plan(parse(text)))
