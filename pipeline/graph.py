"""From a config to what is to run: stages, rings, processes, and the order of starting.  Pure.

python -m pipeline.graph config.toml [--dot | --mermaid]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline import registry, wiring
from pipeline.check import process_of
from pipeline.config import ConfigError, load
from pipeline.output import show
from pipeline.tables import Compare, Config, Filter, Null, Pcap, Side, Socket
from pipeline.wiring import Edge, Port
from ring.layout import LAYOUT_VERSION, PAGE
from stages.schema import MIN_RING, Mistake


@dataclass(frozen=True, kw_only=True)
class StageNode:
    """One stage: what it is, which ring is on each of its ports, and where it runs.

    ``kind`` is a key of the catalog, ``type`` what people see.  ``source``: frames come in here from outside.
    ``sink``: frames leave here.  ``cpus`` and ``idle`` are those of its process; ``cpus`` is empty where any will do.
    ``words``: length of its segment in 8-byte words.
    """

    id: str
    kind: str
    type: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    process: str
    words: int = 0
    cpus: tuple[int, ...] = ()
    idle: str = "backoff"
    source: bool = False
    sink: bool = False

    @property
    def endpoint(self) -> bool:
        """Whether it speaks with the outside (chardevs and the sides of netdevs)."""
        return self.type in ("chardev", "netdev")


@dataclass(frozen=True, kw_only=True)
class Ring:
    """One ring: both ends as (stage, port), bytes of data, whether frames carry V, whether it carries notify text."""

    id: str
    producer: Port
    consumer: Port
    size: int
    vnet: bool = False
    notify: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A planned pipeline.  ``stages`` stand in the order of starting: who reads a ring before who writes it.

    ``finite``: all frames from outside come from captures, so the input ends.  ``digest`` (below 2^63): two plans with
    the same one can use the same segments.
    """

    config: Config
    stages: tuple[StageNode, ...]
    rings: tuple[Ring, ...]
    finite: bool
    digest: int
    by_id: Mapping[str, StageNode] = field(repr=False, compare=False)

    @property
    def processes(self) -> dict[str, tuple[StageNode, ...]]:
        """Stages by process, in the order of starting."""
        names = dict.fromkeys(stage.process for stage in self.stages)
        return {name: tuple(s for s in self.stages if s.process == name) for name in names}


def plan(config: Config) -> Graph:
    """The graph of a config that `pipeline.config` gave.

    Raises `ConfigError` where a capture cannot be read as one: how many flows it has decides how much memory its stage
    needs.
    """
    edges = wiring.edges(config)
    stages = {stage.id: stage for stage in _stages(config, edges, _clock_base(config))}
    rings = tuple(_ring(config, edge, stages) for edge in edges)
    ordered = tuple(stages[name] for name in start_order(config, stages, edges))
    sources = [stage for stage in ordered if stage.source and not _hears_only_notify(stage, rings)]
    return Graph(
        config=config,
        stages=ordered,
        rings=rings,
        finite=bool(sources) and all(stage.kind == "netdev-pcap" for stage in sources),
        digest=_digest(ordered, rings),
        by_id=stages,
    )


def kind_words(stage: StageNode) -> int:
    """Length in words of a stage's segment, as its kind said when the plan was made."""
    return stage.words


def shm_bytes(graph: Graph, words: Callable[[StageNode], int] = kind_words) -> int:
    """Bytes of shared memory that a plan takes: each ring with its header page, each stage's segment, whole pages."""
    sizes = [PAGE + ring.size for ring in graph.rings] + [8 * words(stage) for stage in graph.stages]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


# --- stages and rings -------------------------------------------------------------------------------------------


def _clock_base(config: Config) -> int:
    """The first time in any capture that is read: ns since 1970, 0 where there is none."""
    mistakes, times = [], []
    for name, netdev in config.netdevs.items():
        for label, side in netdev.sides.items():
            if not isinstance(side, Pcap) or side.read is None:
                continue
            try:
                times.append(registry.first_timestamp(side.read))
            except Exception as error:  # the layout module has its own class for it, out of reach from here
                mistakes.append(Mistake(f"netdev.{name}.{label}.read", str(error), "a whole capture, pcap or pcapng"))
    if mistakes:
        raise ConfigError(config.path, mistakes)
    return min((time for time in times if time), default=0)


def _stages(config: Config, edges: Iterable[Edge], clock_base: int) -> Iterable[StageNode]:
    """A node for each stage, in the order of definition: chardevs, netdevs, filters, compares."""
    outputs: dict[str, dict[str, str]] = {name: {} for name in config.stage_ids()}
    inputs: dict[str, dict[str, str]] = {name: {} for name in config.stage_ids()}
    framing: dict[str, Edge] = {}
    for edge in edges:
        outputs[edge.producer.stage][edge.producer.port] = str(edge.producer)
        inputs[edge.consumer.stage][edge.consumer.port] = str(edge.producer)
        framing[edge.producer.stage] = framing[edge.consumer.stage] = edge

    def node(name: str, kind_name: str, params: dict[str, Any], *, gives: bool = False) -> StageNode:
        kind = registry.kind(kind_name)
        # The kind's own order of ports, so that equal plans print and digest alike.
        ins = {port: inputs[name].pop(port) for port in kind.inputs if port in inputs[name]}
        outs = {port: outputs[name].pop(port) for port in kind.outputs if port in outputs[name]}
        if inputs[name] or outputs[name]:
            raise LookupError(f"kind {kind_name} has no port {', '.join((*inputs[name], *outputs[name]))}")
        process = process_of(config, name)
        cpus, idle = _placement(config, process)
        source, sink = gives and "receive" in outs, "send" in ins
        return StageNode(
            id=name, kind=kind.name, type=kind.type, params=params, inputs=ins, outputs=outs,
            process=process, words=kind.words(params), cpus=cpus, idle=idle, source=source, sink=sink,
        )  # fmt: skip

    for name, chardev in config.chardevs.items():
        if isinstance(chardev, Socket):
            edge = framing[name]
            params = {**_params(chardev), "backend": chardev.BACKEND, "vnet": edge.vnet, "text": edge.notify}
            yield node(name, "chardev-socket", params, gives=True)
    for name, netdev in config.netdevs.items():
        for side, end in netdev.sides.items():
            params = {**_params(end), "backend": end.BACKEND, "side": side}
            if end.BACKEND == "stream":
                params["vnet"] = False  # QEMU's -netdev stream never sends V
            if end.BACKEND == "pcap":
                params["clock_base_ns"] = clock_base  # one clock for all captures
            yield node(f"{name}.{side}", f"netdev-{end.BACKEND}", params, gives=_gives(end))
    for name, made in {**config.filters, **config.compares}.items():
        params = {**_params(made), "type": made.TYPE}
        if isinstance(made, Compare):
            params["divergences"] = made.divergences or config.divergences
        yield node(name, made.TYPE, params)


def _params(table: Filter | Compare | Side | Socket) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(table).items()}


def _gives(side: Side) -> bool:
    """Whether frames can come from a netdev's side."""
    return side.read is not None if isinstance(side, Pcap) else not isinstance(side, Null)


def _placement(config: Config, process: str) -> tuple[tuple[int, ...], str]:
    """Processors and idle strategy of a process: what any of its stages asks for (`pipeline.check`: they agree)."""
    asked = [placement for name, placement in config.stages.items() if process_of(config, name) == process]
    cpus = next((placement.cpus for placement in asked if placement.cpus is not None), ())
    return cpus, next((placement.idle for placement in asked if placement.idle is not None), "backoff")


def _ring(config: Config, edge: Edge, stages: Mapping[str, StageNode]) -> Ring:
    producer = stages[edge.producer.stage]
    size = config.pipeline.ring_size
    if edge.notify:
        size = min(size, MIN_RING)  # a line of text now and then
    elif producer.endpoint and not producer.source:
        size = PAGE  # nothing ever comes from it, but its reader wants a ring to look at
    return Ring(
        id=str(edge.producer), producer=edge.producer, consumer=edge.consumer,
        size=size, vnet=edge.vnet, notify=edge.notify,
    )  # fmt: skip


def _hears_only_notify(stage: StageNode, rings: Iterable[Ring]) -> bool:
    return all(ring.notify for ring in rings if ring.producer.stage == stage.id)


# --- order and digest -------------------------------------------------------------------------------------------


def start_order(config: Config, stages: Mapping[str, StageNode], edges: Iterable[Edge]) -> list[str]:
    """Ids of stages: sinks, then compute stages with readers before writers, then sources.

    An endpoint that is both counts as a source: it pours frames in, so all that they meet should be up.  Two filters of
    both directions read from each other; between such stages the order of definition decides, the later one first.
    """
    readers: dict[str, list[str]] = {name: [] for name in stages}
    for edge in edges:
        if not stages[edge.consumer.stage].endpoint:
            readers[edge.producer.stage].append(edge.consumer.stage)
    order = [name for name, stage in stages.items() if stage.endpoint and not stage.source]
    done = set(order)
    # Depth first, a stage after all that it leads to; without recursion, a chain can be long.
    for root in reversed([name for name, stage in stages.items() if not stage.endpoint]):
        if root in done:
            continue
        done.add(root)
        stack = [(root, iter(readers[root]))]
        while stack:
            name, left = stack[-1]
            following = next((reader for reader in left if reader not in done), None)
            if following is None:
                order.append(name)
                stack.pop()
            else:
                done.add(following)
                stack.append((following, iter(readers[following])))
    sources = [name for name, stage in stages.items() if stage.endpoint and stage.source]
    guests_first = [f"{netdev}.{side}" for netdev in config.netdevs for side in ("guest", "network")]
    order += [name for name in sources if stages[name].type == "chardev"]
    order += [name for name in guests_first if name in sources]
    return order


def _digest(stages: Iterable[StageNode], rings: Iterable[Ring]) -> int:
    """A number for everything by which segments of two runs could differ; equal on every machine."""
    parts: list[Any] = [LAYOUT_VERSION]
    for stage in stages:
        kind = registry.kind(stage.kind)
        counters = [counter.name if counter else None for counter in kind.all_counters]
        # Equal sums of words can hide tables of other lengths, and a place in a capture means nothing in another one.
        fixed = [stage.params.get(name) for name in ("max_connections", "hold_memory", "read", "write")]
        parts.append([stage.id, kind.name, kind.inputs, kind.outputs, counters, kind.undo_entries])
        parts.append([stage.words, [*stage.inputs.items()], [*stage.outputs.items()], fixed])
    parts += [[ring.id, ring.consumer, ring.size, ring.vnet, ring.notify] for ring in rings]
    sha = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(sha[:8], "big") >> 1


def main(arguments: list[str] | None = None) -> int:
    """Print the graph of a config; 2 where the config is wrong."""
    from pipeline import draw
    from stages.compare.rules import breadth

    parser = argparse.ArgumentParser(prog="python -m pipeline.graph", description="Show what a config would run.")
    parser.add_argument("config", help="a config.toml")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--dot", dest="form", action="store_const", const=draw.dot, help="as Graphviz text")
    form.add_argument("--mermaid", dest="form", action="store_const", const=draw.mermaid, help="as Mermaid text")
    parser.set_defaults(form=draw.text)
    asked = parser.parse_args(arguments)
    try:
        graph = plan(load(asked.config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for name, what in breadth.warnings(graph.config.rules).items():
        print(f"{asked.config}: warning: rule.{name}: {what}", file=sys.stderr)
    text = asked.form(graph)
    return show("pipeline.graph", lambda: print(text))


if __name__ == "__main__":
    sys.exit(main())
