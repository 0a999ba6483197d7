"""What every ``[filter.ID]`` has, whichever kind it is: its place in the chain of a netdev, and its switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stages.schema import BOOLEAN, IDENT, POSITION, key, one_of

WAYS: Final = (("tx_in", "tx_out"), ("rx_in", "rx_out"))
"""How frames go through a filter along the chain."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The keys that all filters share."""

    netdev: str = key(IDENT, required=True, doc="the netdev in whose chain it stands")
    queue: str = key(one_of("tx", "rx", "all"), "all", doc="`tx`, `rx`, `all`: the direction whose packets meet it")
    status: str = key(
        one_of("on", "off"), "on", doc="`off`: lets everything pass; can be switched while the pipeline runs"
    )
    position: str = key(
        POSITION,
        "tail",
        doc="where it is put in the chain, as in QEMU: `head`, `tail`, or `id=ID`, next to a filter defined above",
    )
    insert: str = key(one_of("behind", "before"), "behind", doc="with `id=ID`: `behind` or `before` that filter")
    vnet_hdr_support: bool = key(BOOLEAN, False, doc="frames on its chardevs carry the length of a virtio-net header")

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions whose packets meet this filter."""
        return ("tx", "rx") if self.queue == "all" else (self.queue,)
