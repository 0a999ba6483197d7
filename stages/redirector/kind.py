"""filter-redirector: packets leave the chain to one chardev, and frames from another enter it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stages.filter import WAYS, Filter
from stages.kind import FILTER, Balance, ChardevKey, Kind, Qemu, options_table
from stages.redirector import layout
from stages.schema import IDENT, Mistake, key, show


@dataclass(frozen=True, kw_only=True)
class Redirector(Filter):
    """``type = "filter-redirector"``."""

    indev: str | None = key(IDENT, doc="frames from this chardev go on in the chain behind this filter")
    outdev: str | None = key(IDENT, doc="gets the packets themselves, while a peer is there")


def _mistakes(table: Redirector, path: str, clean: bool) -> Iterable[Mistake]:
    if table.indev is None and table.outdev is None:
        if clean:
            yield Mistake(path, "neither indev nor outdev", "indev, outdev, or two different ones")
    elif table.indev == table.outdev:
        yield Mistake(f"{path}.outdev", f"{show(table.outdev)}, which is indev too", "another chardev than indev")


KIND: Final = Kind(
    name="filter-redirector",
    type="filter-redirector",
    table=FILTER,
    variant="filter-redirector",
    config=Redirector,
    kernels=("stages.redirector.kernels",),
    burst="redirector_burst",
    inputs=("tx_in", "rx_in", "indev"),
    outputs=("tx_out", "rx_out", "outdev"),
    counters=layout.COUNTERS,
    balances=(
        Balance("every packet goes out or on", ("tx_in_frames", "rx_in_frames"), ("outdev_frames", "passed_on")),
        Balance(
            "every frame from indev enters, or comes too late",
            ("indev_frames", "injected_twice"),
            ("injected_tx", "injected_rx", "dropped_after_failover"),
        ),
        Balance(
            "the chain gets no other",
            ("tx_out_frames", "rx_out_frames"),
            ("passed_on", "injected_tx", "injected_rx"),
        ),
    ),
    tables=(options_table(layout.FIELDS),),
    chardevs=(ChardevKey("indev", reads="indev"), ChardevKey("outdev", writes="outdev")),
    ways=(*WAYS, ("tx_in", "outdev"), ("rx_in", "outdev"), ("indev", "tx_out"), ("indev", "rx_out")),
    losses=("passed_no_peer",),
    hears=("status", "failover"),
    hears_if="secondary",
    derive=lambda table, derived: {"secondary": derived.secondary},
    options=lambda params: {layout.SECONDARY: int(params["secondary"])},
    mistakes=_mistakes,
    qemu=Qemu(("netdev", "queue", "status", "position", "insert", "vnet_hdr_support", "indev", "outdev")),
)
