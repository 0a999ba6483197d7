"""A graph as text: for a terminal, for Graphviz, for Mermaid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline import annexes, wiring
from pipeline.columns import columns
from pipeline.graph import Graph, Ring, StageNode, shm_bytes
from pipeline.tables import RING, RingChardev
from ring.sizes import show_size


def text(graph: Graph) -> str:
    """For a terminal: chains, chardevs, stages in the order of starting, rings, shared memory."""
    config = graph.config
    total = shm_bytes(graph)
    processes = len(graph.processes)
    rings, stages = len(graph.rings), len(graph.stages)
    lines = [
        f"pipeline {config.pipeline.name}: {stages} stages in {processes} process{'es' * (processes != 1)}, "
        f"{rings} rings, {show_size(total)} of shared memory{', finite input' * graph.finite}"
    ]
    for name in config.netdevs:
        lines += ["", f"netdev {name}"]
        for direction, start, end in (("tx", "network", "guest"), ("rx", "guest", "network")):
            met = wiring.path(config.filters, name, direction)
            lines.append(f"  {direction}  " + " ─► ".join((f"{name}.{start}", *met, f"{name}.{end}")))
    if config.chardevs:
        lines += ["", "chardevs", *_table(_chardevs(graph))]
    for _, annex, tables in annexes.used(config):
        lines += ["", annex.title, *_table(annexes.code(annex).rows(tables))]
    lines += ["", "stages, in the order of starting", *_table(_stages(graph))]
    lines += ["", "rings", *_table(_rings(graph))]
    return "\n".join(lines)


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in columns(rows, numbers=False)]


def address(stage: StageNode) -> str:
    """What an endpoint is joined to outside: an address, an interface, files; empty for other stages."""
    return stage.kind.address(stage.params)


def _chardevs(graph: Graph) -> Iterable[tuple[str, ...]]:
    found = wiring.users(graph.config)
    for name, chardev in graph.config.chardevs.items():
        ends = found[name]
        writer = str(ends.writers[0].port) if ends.writers else ""
        reader = str(ends.readers[0].port) if ends.readers else ""
        if isinstance(chardev, RingChardev):
            yield name, RING, f"{writer} ─► {reader}"
        else:
            ways = ", ".join([f"{writer} ─► outside"] * bool(writer) + [f"outside ─► {reader}"] * bool(reader))
            yield name, address(graph.by_id[name]), ways


def _stages(graph: Graph) -> Iterable[tuple[str, ...]]:
    yield "id", "type", "process", "idle", "cpus", "outside"
    for stage in graph.stages:
        cpus = ",".join(map(str, stage.cpus)) or "any"
        yield stage.id, stage.type, stage.process, stage.idle, cpus, address(stage)


def _rings(graph: Graph) -> Iterable[tuple[str, ...]]:
    yield "id", "to", "size", "frames"
    for ring in graph.rings:
        yield ring.id, str(ring.consumer), show_size(ring.size), _frames(ring)


def _frames(ring: Ring) -> str:
    return "text" if ring.text else "with vnet header" if ring.vnet else "plain"


def _quote(words: str) -> str:
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'


def dot(graph: Graph) -> str:
    """As Graphviz text: a box for each stage, a cluster for each process of several."""
    lines = [f"digraph {_quote(graph.config.pipeline.name)} {{", "  rankdir=LR;", "  node [shape=box];"]
    for number, (process, stages) in enumerate(graph.processes.items()):
        shared = len(stages) > 1
        if shared:
            lines += [f"  subgraph cluster_{number} {{", f"    label={_quote(process)};"]
        for stage in stages:
            shape = ", shape=ellipse" if stage.endpoint else ""
            label = "\\n".join(part.replace('"', '\\"') for part in (stage.id, stage.type, address(stage)) if part)
            lines.append(f'  {"  " * shared}{_quote(stage.id)} [label="{label}"{shape}];')
        if shared:
            lines.append("  }")
    for ring in graph.rings:
        style = ", style=dashed" if ring.text else ""
        label = f"{ring.producer.port} to {ring.consumer.port}"
        lines.append(
            f"  {_quote(ring.producer.stage)} -> {_quote(ring.consumer.stage)} [label={_quote(label)}{style}];"
        )
    return "\n".join([*lines, "}"])


def mermaid(graph: Graph) -> str:
    """As Mermaid text.  Its ids take few characters, so stages are numbered and labelled."""
    number = {stage.id: f"s{n}" for n, stage in enumerate(graph.stages)}
    lines = ["flowchart LR"]
    for n, (process, stages) in enumerate(graph.processes.items()):
        shared = len(stages) > 1
        if shared:
            lines.append(f'  subgraph p{n}["{process}"]')
        for stage in stages:
            label = "<br>".join(part.replace('"', "#quot;") for part in (stage.id, stage.type, address(stage)) if part)
            opening, closing = ('(["', '"])') if stage.endpoint else ('["', '"]')
            lines.append(f"  {'  ' * shared}{number[stage.id]}{opening}{label}{closing}")
        if shared:
            lines.append("  end")
    for ring in graph.rings:
        arrow = "-.->" if ring.text else "-->"
        label = f"{ring.producer.port} to {ring.consumer.port}"
        lines.append(f'  {number[ring.producer.stage]} {arrow}|"{label}"| {number[ring.consumer.stage]}')
    return "\n".join(lines)
