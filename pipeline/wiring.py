"""Which port of which stage is joined to which: the order of filters, and the links that chardevs make.

    tx   network.receive ─► filters of tx and all, in the chain's order   ─► guest.send
    rx   guest.receive   ─► filters of rx and all, in the reverse order   ─► network.send

Pure.  It takes configs with mistakes too (it leaves out what it cannot join), because the search for loops is part of
checking a config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from pipeline.tables import Compare, Config, Filter, Link, Mirror, Redirector, Socket


class Port(NamedTuple):
    """A port of a stage; as text ``STAGE.PORT``."""

    stage: str
    port: str

    def __str__(self) -> str:
        return f"{self.stage}.{self.port}"


class Edge(NamedTuple):
    """One ring to be: who writes it, who reads it, whether frames carry V, whether it carries the notify text."""

    producer: Port
    consumer: Port
    vnet: bool = False
    notify: bool = False


@dataclass(frozen=True)
class Use:
    """One end of a chardev: the object's port, the key in the config that says so, the framing that it wants."""

    port: Port
    key: str
    vnet: bool
    notify: bool = False


@dataclass(frozen=True)
class Users:
    """Who uses a chardev: readers take frames that come from it, writers give it frames."""

    readers: Sequence[Use]
    writers: Sequence[Use]


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


def users(filters: Mapping[str, Filter], compares: Mapping[str, Compare]) -> dict[str, Users]:
    """The users of each chardev id that is named anywhere, in the order of definition."""
    found: dict[str, Users] = {}

    def add(chardev: str | None, use: Use, *, reads: bool) -> None:
        if chardev:
            ends = found.setdefault(chardev, Users([], []))
            (ends.readers if reads else ends.writers).append(use)  # type: ignore[attr-defined]

    for name, made in filters.items():
        vnet = made.vnet_hdr_support
        if isinstance(made, Redirector):
            add(made.indev, Use(Port(name, "indev"), f"filter.{name}.indev", vnet), reads=True)
        if isinstance(made, Mirror | Redirector):
            add(made.outdev, Use(Port(name, "outdev"), f"filter.{name}.outdev", vnet), reads=False)
    for name, compare in compares.items():
        vnet, at = compare.vnet_hdr_support, f"compare.{name}."
        for port in ("primary_in", "secondary_in"):
            add(getattr(compare, port), Use(Port(name, port), at + port, vnet), reads=True)
        add(compare.outdev, Use(Port(name, "outdev"), at + "outdev", vnet), reads=False)
        add(compare.notify_dev, Use(Port(name, "notify_in"), at + "notify_dev", False, True), reads=True)
        add(compare.notify_dev, Use(Port(name, "notify_out"), at + "notify_dev", False, True), reads=False)
    return found


def edges(config: Config) -> list[Edge]:
    """Every ring of a config: netdevs' chains first, then chardevs."""
    made: list[Edge] = []
    for name, netdev in config.netdevs.items():
        for direction, start, end in (("tx", "network", "guest"), ("rx", "guest", "network")):
            before = Port(f"{name}.{start}", "receive")
            for met in path(config.filters, name, direction):
                made.append(Edge(before, Port(met, f"{direction}_in"), netdev.vnet))
                before = Port(met, f"{direction}_out")
            made.append(Edge(before, Port(f"{name}.{end}", "send"), netdev.vnet))
    for name, ends in users(config.filters, config.compares).items():
        chardev = config.chardevs.get(name)
        if isinstance(chardev, Socket):
            made += [Edge(w.port, Port(name, "send"), w.vnet, w.notify) for w in ends.writers]
            made += [Edge(Port(name, "receive"), r.port, r.vnet, r.notify) for r in ends.readers]
        elif isinstance(chardev, Link):
            made += [Edge(w.port, r.port, w.vnet) for w, r in zip(ends.writers, ends.readers, strict=False)]
    return made


def _flows(config: Config) -> Iterable[tuple[Port, Port]]:
    """From which inputs of a stage a frame can reach which of its outputs; endpoints lead to nowhere."""
    for name, made in config.filters.items():
        for direction in made.directions:
            yield Port(name, f"{direction}_in"), Port(name, f"{direction}_out")
            yield Port(name, f"{direction}_in"), Port(name, "outdev")
            yield Port(name, "indev"), Port(name, f"{direction}_out")
    for name in config.compares:
        yield Port(name, "primary_in"), Port(name, "outdev")  # the secondary's frames end here


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
