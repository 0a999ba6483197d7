"""Which port of which stage is joined to which: the order of filters, and the links that chardevs make.

    tx   network.receive ─► filters of tx and all, in the chain's order   ─► guest.send
    rx   guest.receive   ─► filters of rx and all, in the reverse order   ─► network.send

Pure.  It takes configs with mistakes too (it leaves out what it cannot join), because the search for loops is part of
checking a config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from pipeline.tables import Config, RingChardev, stage_id
from stages import catalog
from stages.filter import Filter
from stages.kind import FRAMING_KEY, RECEIVE, SEND, Joint


class Port(NamedTuple):
    """A port of a stage; as text ``STAGE.PORT``."""

    stage: str
    port: str

    def __str__(self) -> str:
        return f"{self.stage}.{self.port}"


class Edge(NamedTuple):
    """One ring to be: who writes it, who reads it, whether frames carry V, whether it carries lines of text."""

    producer: Port
    consumer: Port
    vnet: bool = False
    text: bool = False


@dataclass(frozen=True)
class Use:
    """One end of a chardev: the object's port, the key in the config that says so, the framing that it wants."""

    port: Port
    key: str
    vnet: bool
    text: bool = False


@dataclass(frozen=True)
class Users:
    """Who uses a chardev: readers take frames that come from it, writers give it frames."""

    readers: list[Use]
    writers: list[Use]


def chain(filters: Mapping[str, Filter], netdev: str) -> list[str]:
    """Ids of a netdev's filters in the chain's order.

    As QEMU does it: each filter is put, in the order of definition, at the head, at the tail, or next to one that
    is there.
    """
    order: list[str] = []
    for name, made in filters.items():
        if made.netdev != netdev:
            continue
        place, _, other = made.position.partition("=")
        if place == "head":
            order.insert(0, name)
        elif other in order:
            order.insert(order.index(other) + (made.insert == "behind"), name)
        else:
            order.append(name)
    return order


def path(filters: Mapping[str, Filter], netdev: str, direction: str) -> list[str]:
    """Ids of the filters that packets of a direction (tx, rx) meet, in the order in which they meet them."""
    met = [name for name in chain(filters, netdev) if direction in filters[name].directions]
    return met if direction == "tx" else met[::-1]


def users(config: Config) -> dict[str, Users]:
    """The users of each chardev id that is named anywhere, in the order of definition."""
    found: dict[str, Users] = {}
    for path, table in config.computing().items():
        for link in catalog.of(table).chardevs:
            chardev = getattr(table, link.key)
            if not chardev:
                continue
            ends = found.setdefault(chardev, Users([], []))
            for port, uses in ((link.reads, ends.readers), (link.writes, ends.writers)):
                if port:
                    vnet = not link.text and getattr(table, FRAMING_KEY)
                    uses.append(Use(Port(stage_id(path), port), f"{path}.{link.key}", vnet, link.text))
    return found


def edges(config: Config) -> list[Edge]:
    """Every ring of a config: netdevs' chains first, then chardevs."""
    made: list[Edge] = []
    for name, netdev in config.netdevs.items():
        for direction, start, end in (("tx", "network", "guest"), ("rx", "guest", "network")):
            before = Port(f"{name}.{start}", RECEIVE)
            for met in path(config.filters, name, direction):
                made.append(Edge(before, Port(met, f"{direction}_in"), netdev.vnet))
                before = Port(met, f"{direction}_out")
            made.append(Edge(before, Port(f"{name}.{end}", SEND), netdev.vnet))
    for name, ends in users(config).items():
        chardev = config.chardevs.get(name)
        if isinstance(chardev, RingChardev):
            made += [Edge(w.port, r.port, w.vnet) for w, r in zip(ends.writers, ends.readers, strict=False)]
        elif chardev is not None:
            made += [Edge(w.port, Port(name, SEND), w.vnet, w.text) for w in ends.writers]
            made += [Edge(Port(name, RECEIVE), r.port, r.vnet, r.text) for r in ends.readers]
    return made


def joined(config: Config) -> list[tuple[Use, Use]]:
    """Who of the config's objects gives whom frames over chardevs, (writer, reader): in memory, or over an address.

    A server and a client of one config that meet at one address are one link, as QEMU's command lines have them.
    """
    used = users(config)
    sockets = {name: made for name, made in config.chardevs.items() if not isinstance(made, RingChardev)}
    joints = {name: catalog.of(table).joint(table) for name, table in sockets.items()}
    found = []
    for name, ends in used.items():
        if name in sockets:
            mine = joints[name]
            others = [n for n, its in joints.items() if mine and its and its == Joint(not mine.server, mine.where)]
        else:
            others = [name]
        writers = [use for other in others if other in used for use in used[other].writers]
        found += [(writer, reader) for writer in writers for reader in ends.readers]
    return found


def _flows(config: Config) -> Iterable[tuple[Port, Port]]:
    """From which inputs of a stage a frame can reach which of its outputs; endpoints lead to nowhere."""
    for path, table in config.computing().items():
        name = stage_id(path)
        for before, after in catalog.of(table).ways:
            if not (isinstance(table, Filter) and _unmet(table, before, after)):
                yield Port(name, before), Port(name, after)


def _unmet(table: Filter, *ports: str) -> bool:
    """Whether one of ``ports`` is of a direction whose packets do not meet a filter."""
    met = {f"{direction}_{way}" for direction in table.directions for way in ("in", "out")}
    return any(port.startswith(("tx_", "rx_")) and port not in met for port in ports)


def loop(config: Config) -> list[Port]:
    """A way on which frames would go round for ever, its first port repeated at the end; empty where there is none."""
    sorter: TopologicalSorter[Port] = TopologicalSorter()
    for edge in edges(config):
        sorter.add(edge.consumer, edge.producer)
    for before, after in _flows(config):
        sorter.add(after, before)
    try:
        sorter.prepare()
    except CycleError as error:
        found: list[Port] = error.args[1]
        return found
    return []
