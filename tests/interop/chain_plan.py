"""Which program holds which part of the chain, and what processes and sockets that takes.  Pure: nothing is started.

The parts are those of the figure in colo-proxy.txt.  Neighbours in a side's chain that the same program holds stand in
one process; where holders change, two stream netdevs are joined.  The compare stands with filters of its own holder
where there are any on the primary, else it has a process to itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

PRIMARY_CHAIN: Final = ("m0", "redire0", "redire1")  # from the network to the guest
SECONDARY_CHAIN: Final = ("f1", "f2", "rew0")  # what the guest sends meets rew0, then f2
COMPARE: Final = "comp0"
PRIMARY_PARTS: Final = frozenset({*PRIMARY_CHAIN, COMPARE})
SECONDARY_PARTS: Final = frozenset(SECONDARY_CHAIN)
PARTS: Final = (*PRIMARY_CHAIN, COMPARE, *SECONDARY_CHAIN)

TYPES: Final = {"m0": "mirror", "rew0": "rewriter"}
QUEUES: Final = {"m0": "tx", "redire0": "rx", "redire1": "rx", "f1": "tx", "f2": "rx", "rew0": "all"}

LINKS: Final = {  # chardevs of each part: its property, the chardev, the link that it is an end of; servers first
    "m0": (("outdev", "mirror0", "mirror"),),
    "redire0": (("indev", "compare_out", "out"),),
    "redire1": (("outdev", "compare0", "primary"),),
    COMPARE: (
        ("secondary_in", "compare1", "secondary"),
        ("notify_dev", "notify0", "notify"),
        ("primary_in", "compare0-0", "primary"),
        ("outdev", "compare_out0", "out"),
    ),
    "f1": (("indev", "red0", "mirror"),),
    "f2": (("outdev", "red1", "secondary"),),
    "rew0": (),
}
SERVERS: Final = frozenset({"mirror0", "compare_out", "compare0", "compare1", "notify0"})
ENDS: Final = ("client", "primary-guest", "secondary-wire", "secondary-guest", "notify")  # sockets of the test itself


def filter_type(part: str) -> str:
    """``filter-mirror`` of m0."""
    return f"filter-{TYPES.get(part, 'redirector')}"


@dataclass(frozen=True)
class Host:
    """One process: its holder, the filters of its netdev in order, the links of that netdev's two sides."""

    name: str
    ours: bool
    filters: tuple[str, ...]
    network: str = ""
    guest: str = ""
    compare: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Filters and compare."""
        return (*self.filters, COMPARE) if self.compare else self.filters

    def chardevs(self) -> Iterator[tuple[str, str, str]]:
        """Chardev, link, and the part that names it, servers first (within QEMU a client finds its server there)."""
        found = [(dev, link, part) for part in self.parts for _, dev, link in LINKS[part]]
        return iter(sorted(found, key=lambda one: one[0] not in SERVERS))


@dataclass(frozen=True)
class Chain:
    """What the test varies: the parts that are ours (the others are QEMU's), TCP or unix sockets, V or not."""

    ours: frozenset[str] = frozenset()
    tcp: bool = False
    vnet: bool = False

    def __str__(self) -> str:
        names = {
            frozenset(): "QEMU",
            frozenset(PARTS): "ours",
            PRIMARY_PARTS: "primary ours",
            SECONDARY_PARTS: "secondary ours",
        }
        few = min((self.ours, frozenset(PARTS) - self.ours), key=len)
        who = (
            names.get(self.ours) or f"{'+'.join(p for p in PARTS if p in few)} {'ours' if few == self.ours else 'QEMU'}"
        )
        return f"{who}, {'tcp' if self.tcp else 'unix'}{', vnet' if self.vnet else ''}"

    def hosts(self) -> list[Host]:
        """Processes in an order in which each chardev client of QEMU finds its server, filters before their compare."""
        primary = list(self._side("primary", PRIMARY_CHAIN, "client"))
        mine = [h for h in primary if h.ours == (COMPARE in self.ours)]
        holder = mine[-1] if mine else Host("primary-compare", COMPARE in self.ours, ())
        with_compare = Host(holder.name, holder.ours, holder.filters, holder.network, holder.guest, compare=True)
        others = [h for h in primary if h is not holder]
        return [*others, with_compare, *self._side("secondary", SECONDARY_CHAIN, "secondary-wire")]

    def _side(self, side: str, chain: Sequence[str], outside: str) -> Iterator[Host]:
        runs = [(ours, tuple(run)) for ours, run in itertools.groupby(chain, lambda part: part in self.ours)]
        network = outside
        for i, (ours, filters) in enumerate(runs):
            guest = f"{side}-joint{i}" if i + 1 < len(runs) else f"{side}-guest"
            yield Host(f"{side}-{i}", ours, filters, network, guest)
            network = guest
