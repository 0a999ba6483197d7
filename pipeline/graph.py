"""From a config to what is to run: stages, rings, processes, and the order of starting.  Pure.

python -m pipeline.graph config.toml [--dot | --mermaid]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import wiring
from pipeline.check import doubts, process_of
from pipeline.config import ConfigError, load
from pipeline.stdout import show
from pipeline.streams import complain
from pipeline.tables import SIDES, Config, RingChardev, stage_id
from pipeline.wiring import Edge, Port
from ring.layout import LAYOUT_VERSION, PAGE
from stages import catalog
from stages.filter import Filter
from stages.kind import CHARDEV, NETDEV, RECEIVE, SEND, Derived, Kind
from stages.schema import MIN_RING, Mistake


@dataclass(frozen=True, kw_only=True)
class StageNode:
    """One stage: what it is, which ring is on each of its ports, and where it runs.

    ``source``: frames come in here from outside.
    ``sink``: frames leave here.  ``cpus`` and ``idle`` are those of its process; ``cpus`` is empty where any will do.
    ``words``: length of its segment in 8-byte words.
    """

    id: str
    kind: Kind
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
        return self.kind.endpoint

    @property
    def type(self) -> str:
        """What people call its kind."""
        return self.kind.type


@dataclass(frozen=True, kw_only=True)
class Ring:
    """One ring: both ends as (stage, port), bytes of data, whether frames carry V, whether it carries lines of text."""

    id: str
    producer: Port
    consumer: Port
    size: int
    vnet: bool = False
    text: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A planned pipeline.  ``stages`` stand in the order of starting: who reads a ring before who writes it.

    ``finite``: all frames from outside come from finite inputs, so the run ends with them.  ``start_ns``: time of the
    earliest of their frames, 0: there is none.  ``digest`` (below 2^63): two plans with the same one can use the same
    segments.
    """

    config: Config
    stages: tuple[StageNode, ...]
    rings: tuple[Ring, ...]
    finite: bool
    start_ns: int
    digest: int
    by_id: Mapping[str, StageNode] = field(repr=False, compare=False)

    @property
    def processes(self) -> dict[str, tuple[StageNode, ...]]:
        """Stages by process, in the order of starting."""
        names = dict.fromkeys(stage.process for stage in self.stages)
        return {name: tuple(s for s in self.stages if s.process == name) for name in names}


def plan(config: Config) -> Graph:
    """The graph of a config that `pipeline.config` gave.

    Raises `ConfigError` where a finite input cannot be read: what is in it decides how much memory its stage needs.
    """
    edges = wiring.edges(config)
    start_ns = _start_ns(config)
    stages = {stage.id: stage for stage in _stages(config, edges, start_ns)}
    rings = tuple(_ring(config, edge, stages) for edge in edges)
    ordered = tuple(stages[name] for name in start_order(config, stages, edges))
    sources = [stage for stage in ordered if stage.source and not _gives_only_text(stage, rings)]
    return Graph(
        config=config,
        stages=ordered,
        rings=rings,
        finite=bool(sources) and all(stage.kind.finite for stage in sources),
        start_ns=start_ns,
        digest=_digest(ordered, rings),
        by_id=stages,
    )


def shm_bytes(graph: Graph) -> int:
    """Bytes of shared memory that a plan takes: each ring with its header page, each stage's segment, whole pages."""
    sizes = [PAGE + ring.size for ring in graph.rings] + [8 * stage.words for stage in graph.stages]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


# --- stages and rings -------------------------------------------------------------------------------------------


def _start_ns(config: Config) -> int:
    """The first time in any finite input: ns since 1970, 0 where there is none."""
    mistakes, times = [], []
    for path, table in config.tables().items():
        kind = catalog.of(table)
        try:
            times.append(kind.start_ns(table))
        except (OSError, ValueError) as error:
            mistakes.append(Mistake(f"{path}.{kind.start_key}", str(error), kind.start_expected))
    if mistakes:
        raise ConfigError(config.path, mistakes)
    return min((time for time in times if time), default=0)


def _stages(config: Config, edges: Iterable[Edge], start_ns: int) -> Iterable[StageNode]:
    """A node for each stage, in the order of `pipeline.tables.Config.tables`."""
    outputs: dict[str, dict[str, str]] = {name: {} for name in config.stage_ids()}
    inputs: dict[str, dict[str, str]] = {name: {} for name in config.stage_ids()}
    framing: dict[str, Edge] = {}
    for edge in edges:
        outputs[edge.producer.stage][edge.producer.port] = str(edge.producer)
        inputs[edge.consumer.stage][edge.consumer.port] = str(edge.producer)
        framing[edge.producer.stage] = framing[edge.consumer.stage] = edge
    used = wiring.users(config).items()
    writers = {f"{CHARDEV}.{name}": ends.writers[0].key for name, ends in used if ends.writers}
    readers = {
        f"{CHARDEV}.{name}": f"{name} ({ends.readers[0].key})"
        for name, ends in used
        if ends.readers and not ends.readers[0].text and not isinstance(config.chardevs[name], RingChardev)
    }
    secondaries = {made.netdev for made in config.filters.values() if catalog.of(made).marks_secondary}
    for path, table in config.tables().items():
        name, kind = stage_id(path), catalog.of(table)
        edge = framing[name]
        netdev, side = _netdev_of(config, path, table)
        secondary = netdev in secondaries
        gated = secondary and side == SIDES[0] and config.netdevs[netdev].before_failover == "drop"
        derived = Derived(
            edge.vnet, edge.text, config.runtime, start_ns, secondary, gated, config.pipeline.name,
            writers.get(path, ""), ", ".join(said for other, said in readers.items() if other != path),
        )  # fmt: skip
        params = kind.params(table, derived)
        # The kind's own order of ports, so that equal plans print and digest alike.
        ins = {port: inputs[name].pop(port) for port in kind.inputs if port in inputs[name]}
        outs = {port: outputs[name].pop(port) for port in kind.outputs if port in outputs[name]}
        if inputs[name] or outputs[name]:
            raise LookupError(f"kind {kind.name} has no port {', '.join((*inputs[name], *outputs[name]))}")
        process = process_of(config, name)
        cpus, idle = _placement(config, process)
        source = kind.endpoint and kind.gives(table) and RECEIVE in outs
        yield StageNode(
            id=name, kind=kind, params=params, inputs=ins, outputs=outs, process=process, words=kind.words(params),
            cpus=cpus, idle=idle, source=source, sink=SEND in ins,
        )  # fmt: skip


def _netdev_of(config: Config, path: str, table: Any) -> tuple[str, str]:
    """The netdev that a table belongs to, and which of its sides it is; nothing for tables that belong to none."""
    if isinstance(table, Filter):
        return table.netdev, ""
    name, _, side = stage_id(path).rpartition(".")
    return (name, side) if path.startswith(f"{NETDEV}.") else ("", "")


def _placement(config: Config, process: str) -> tuple[tuple[int, ...], str]:
    """Processors and idle strategy of a process: what any of its stages asks for (`pipeline.check`: they agree)."""
    asked = [placement for name, placement in config.stages.items() if process_of(config, name) == process]
    cpus = next((placement.cpus for placement in asked if placement.cpus is not None), ())
    return cpus, next((placement.idle for placement in asked if placement.idle is not None), "backoff")


def _ring(config: Config, edge: Edge, stages: Mapping[str, StageNode]) -> Ring:
    producer = stages[edge.producer.stage]
    size = config.pipeline.ring_size
    if edge.text:
        size = min(size, MIN_RING)  # a line of text now and then
    elif producer.endpoint and not producer.source:
        size = PAGE  # nothing ever comes from it, but its reader wants a ring to look at
    return Ring(
        id=str(edge.producer), producer=edge.producer, consumer=edge.consumer,
        size=size, vnet=edge.vnet, text=edge.text,
    )  # fmt: skip


def _gives_only_text(stage: StageNode, rings: Iterable[Ring]) -> bool:
    return all(ring.text for ring in rings if ring.producer.stage == stage.id)


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
    order += [name for name in sources if stages[name].kind.table == CHARDEV]
    order += [name for name in guests_first if name in sources]
    return order


def _digest(stages: Iterable[StageNode], rings: Iterable[Ring]) -> int:
    """A number for everything by which segments of two runs could differ; equal on every machine."""
    parts: list[Any] = [LAYOUT_VERSION]
    for stage in stages:
        kind = stage.kind
        counters = [counter.name if counter else None for counter in kind.all_counters]
        # Equal sums of words can hide tables of other lengths, and a place in a capture means nothing in another one.
        fixed = [stage.params.get(name) for name in kind.sized_by]
        parts.append([stage.id, kind.name, kind.inputs, kind.outputs, counters, kind.undo_entries])
        parts.append([stage.words, [*stage.inputs.items()], [*stage.outputs.items()], fixed])
    parts += [[ring.id, ring.consumer, ring.size, ring.vnet, ring.text] for ring in rings]
    sha = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(sha[:8], "big") >> 1


def main(arguments: list[str] | None = None) -> int:
    """Print the graph of a config; 2 where the config is wrong."""
    from pipeline import annexes, draw

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
        complain(str(error))
        return 2
    for path, what in annexes.warnings(graph.config).items():
        complain(f"{asked.config}: warning: {path}: {what}")
    for path, doubt in doubts(graph.config).items():
        complain(f"{asked.config}: warning: {path}: {doubt.what}; {doubt.mend}")
    text = asked.form(graph)
    return show("pipeline.graph", lambda: print(text))


if __name__ == "__main__":
    sys.exit(main())
